-- One row per attempt of a stage, however often its events were told. Only minima and "first by offset" are kept, so
-- repeats change nothing; all events of a job share a partition, so offsets order them.
CREATE TABLE IF NOT EXISTS stage_attempts_state
(
    job_id String,
    stage_index Int32,
    stage LowCardinality(String),
    attempt Int32,
    started_at SimpleAggregateFunction(min, Nullable(DateTime64(3, 'UTC'))),
    ended_at AggregateFunction(argMinIf, DateTime64(3, 'UTC'), UInt64, UInt8),
    outcome AggregateFunction(argMinIf, String, UInt64, UInt8),
    pool AggregateFunction(argMinIf, String, UInt64, UInt8),
    resource_class AggregateFunction(argMinIf, String, UInt64, UInt8),
    slot AggregateFunction(argMinIf, Int32, UInt64, UInt8),
    model_version AggregateFunction(argMinIf, String, UInt64, UInt8),
    wait_seconds AggregateFunction(argMinIf, Float64, UInt64, UInt8),
    run_seconds AggregateFunction(argMinIf, Float64, UInt64, UInt8),
    gpu_seconds AggregateFunction(argMinIf, Float64, UInt64, UInt8),
    error_class AggregateFunction(argMinIf, String, UInt64, UInt8)
)
ENGINE = AggregatingMergeTree
ORDER BY (job_id, stage_index, stage, attempt)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS stage_attempts_feed TO stage_attempts_state AS
SELECT
    job_id, stage_index, stage, attempt,
    minIf(toNullable(at), transition = 'started') AS started_at,
    argMinIfState(at, offset, is_end) AS ended_at,
    argMinIfState(CAST(transition, 'String'), offset, is_end) AS outcome,
    argMinIfState(CAST(pool, 'String'), offset, toUInt8(pool != '')) AS pool,
    argMinIfState(CAST(resource_class, 'String'), offset, toUInt8(resource_class != '')) AS resource_class,
    argMinIfState(assumeNotNull(slot), offset, toUInt8(slot IS NOT NULL)) AS slot,
    argMinIfState(CAST(model_version, 'String'), offset, toUInt8(model_version != '')) AS model_version,
    argMinIfState(assumeNotNull(wait_seconds), offset, toUInt8(wait_seconds IS NOT NULL)) AS wait_seconds,
    argMinIfState(assumeNotNull(run_seconds), offset, toUInt8(run_seconds IS NOT NULL)) AS run_seconds,
    argMinIfState(assumeNotNull(gpu_seconds), offset, toUInt8(gpu_seconds IS NOT NULL)) AS gpu_seconds,
    argMinIfState(CAST(error_class, 'String'), offset, toUInt8(error_class != '')) AS error_class
FROM
(
    SELECT *, toUInt8(transition IN ('stage_succeeded', 'stage_failed', 'stage_lost')) AS is_end
    FROM job_events
    WHERE transition IN ('started', 'stage_succeeded', 'stage_failed', 'stage_lost')
)
GROUP BY job_id, stage_index, stage, attempt;

CREATE VIEW IF NOT EXISTS stage_attempts AS
SELECT
    job_id, stage_index, stage, attempt,
    min(started_at) AS started_at,
    argMinIfMerge(outcome) AS outcome,
    if(outcome = '', NULL, argMinIfMerge(ended_at)) AS ended_at,
    argMinIfMerge(pool) AS pool,
    argMinIfMerge(resource_class) AS resource_class,
    argMinIfMerge(slot) AS slot,
    argMinIfMerge(model_version) AS model_version,
    argMinIfMerge(wait_seconds) AS wait_seconds,
    argMinIfMerge(run_seconds) AS run_seconds,
    argMinIfMerge(gpu_seconds) AS gpu_seconds,
    argMinIfMerge(error_class) AS error_class
FROM stage_attempts_state
GROUP BY job_id, stage_index, stage, attempt;
