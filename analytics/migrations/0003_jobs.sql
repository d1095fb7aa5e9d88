-- One row per job. Its first final event in the log is its outcome; `rejected` counts only where nothing else came,
-- because a refused key stays free and its job may be accepted later.
CREATE TABLE IF NOT EXISTS jobs_state
(
    job_id String,
    user_id SimpleAggregateFunction(any, String),
    workflow SimpleAggregateFunction(any, LowCardinality(String)),
    pipeline_id SimpleAggregateFunction(any, LowCardinality(String)),
    created_at SimpleAggregateFunction(min, DateTime64(3, 'UTC')),
    queued_at SimpleAggregateFunction(min, Nullable(DateTime64(3, 'UTC'))),
    started_at SimpleAggregateFunction(min, Nullable(DateTime64(3, 'UTC'))),
    rejected_at SimpleAggregateFunction(min, Nullable(DateTime64(3, 'UTC'))),
    finished_at AggregateFunction(argMinIf, DateTime64(3, 'UTC'), UInt64, UInt8),
    outcome AggregateFunction(argMinIf, String, UInt64, UInt8),
    error_class AggregateFunction(argMinIf, String, UInt64, UInt8)
)
ENGINE = AggregatingMergeTree
ORDER BY job_id
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS jobs_feed TO jobs_state AS
SELECT
    job_id,
    any(user_id) AS user_id,
    any(workflow) AS workflow,
    any(pipeline_id) AS pipeline_id,
    min(created_at) AS created_at,
    minIf(toNullable(at), transition = 'queued') AS queued_at,
    minIf(toNullable(at), transition = 'started') AS started_at,
    minIf(toNullable(at), transition = 'rejected') AS rejected_at,
    argMinIfState(at, offset, is_final) AS finished_at,
    argMinIfState(CAST(transition, 'String'), offset, is_final) AS outcome,
    argMinIfState(CAST(error_class, 'String'), offset, is_final) AS error_class
FROM
(
    SELECT *, toUInt8(transition IN ('succeeded', 'failed', 'canceled')) AS is_final
    FROM job_events
)
GROUP BY job_id;

CREATE VIEW IF NOT EXISTS jobs AS
SELECT
    job_id, user_id, workflow, pipeline_id, created_at, queued_at, started_at,
    multiIf(
        outcome != '', outcome,
        started_at IS NOT NULL, 'running',
        queued_at IS NOT NULL, 'queued',
        rejected_at IS NOT NULL, 'rejected',
        'submitted') AS state,
    multiIf(outcome != '', toNullable(final_at), state = 'rejected', rejected_at, NULL) AS finished_at,
    error_class,
    (toUnixTimestamp64Milli(finished_at) - toUnixTimestamp64Milli(created_at)) / 1000 AS seconds
FROM
(
    SELECT
        job_id,
        any(user_id) AS user_id,
        any(workflow) AS workflow,
        any(pipeline_id) AS pipeline_id,
        min(created_at) AS created_at,
        min(queued_at) AS queued_at,
        min(started_at) AS started_at,
        min(rejected_at) AS rejected_at,
        argMinIfMerge(outcome) AS outcome,
        argMinIfMerge(finished_at) AS final_at,
        argMinIfMerge(error_class) AS error_class
    FROM jobs_state
    GROUP BY job_id
);
