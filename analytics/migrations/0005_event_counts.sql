-- Distinct events by hour: what dashboards draw. Sets of event ids, so that repeats count once.
CREATE TABLE IF NOT EXISTS event_counts_state
(
    hour DateTime('UTC'),
    workflow LowCardinality(String),
    stage LowCardinality(String),
    transition LowCardinality(String),
    events AggregateFunction(uniqExact, String)
)
ENGINE = AggregatingMergeTree
ORDER BY (hour, workflow, stage, transition)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS event_counts_feed TO event_counts_state AS
SELECT toStartOfHour(toDateTime(at, 'UTC')) AS hour, workflow, stage, transition, uniqExactState(event_id) AS events
FROM job_events
GROUP BY hour, workflow, stage, transition;

CREATE VIEW IF NOT EXISTS event_counts AS
SELECT hour, workflow, stage, transition, uniqExactMerge(events) AS events
FROM event_counts_state
GROUP BY hour, workflow, stage, transition;
