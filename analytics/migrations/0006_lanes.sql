-- What version 2 of JobEvent brought: lane, tier and priority of a job, what the load level took away, when a held or
-- failed job goes on, which dead job it repeats; and the states held and aborted.
-- Columns are added before the views that fill them; rows from before have the empty string, NULL or 0.
ALTER TABLE job_events
    ADD COLUMN IF NOT EXISTS lane LowCardinality(String) AFTER traceparent,
    ADD COLUMN IF NOT EXISTS tier LowCardinality(String) AFTER lane,
    ADD COLUMN IF NOT EXISTS priority Nullable(Int32) AFTER tier,
    ADD COLUMN IF NOT EXISTS due_at Nullable(DateTime64(3, 'UTC')) AFTER priority,
    ADD COLUMN IF NOT EXISTS retry_of String AFTER due_at,
    ADD COLUMN IF NOT EXISTS adjustments Array(String) AFTER retry_of;

-- Maxima of strings: the empty string of rows that do not know gives way, and neither repeats nor order change it.
ALTER TABLE stage_attempts_state
    ADD COLUMN IF NOT EXISTS user_id SimpleAggregateFunction(max, String),
    ADD COLUMN IF NOT EXISTS lane SimpleAggregateFunction(max, LowCardinality(String)),
    ADD COLUMN IF NOT EXISTS tier SimpleAggregateFunction(max, LowCardinality(String)),
    ADD COLUMN IF NOT EXISTS due_at SimpleAggregateFunction(max, Nullable(DateTime64(3, 'UTC')));

ALTER TABLE stage_attempts_feed MODIFY QUERY
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
    argMinIfState(CAST(error_class, 'String'), offset, toUInt8(error_class != '')) AS error_class,
    max(user_id) AS user_id,
    max(lane) AS lane,
    max(tier) AS tier,
    max(due_at) AS due_at
FROM
(
    SELECT *, toUInt8(transition IN ('stage_succeeded', 'stage_failed', 'stage_lost')) AS is_end
    FROM job_events
    WHERE transition IN ('started', 'stage_succeeded', 'stage_failed', 'stage_lost')
)
GROUP BY job_id, stage_index, stage, attempt;

-- due_at: when the next attempt might start, of attempts that failed.
CREATE OR REPLACE VIEW stage_attempts AS
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
    argMinIfMerge(error_class) AS error_class,
    max(user_id) AS user_id,
    max(lane) AS lane,
    max(tier) AS tier,
    max(due_at) AS due_at
FROM stage_attempts_state
GROUP BY job_id, stage_index, stage, attempt;

-- answer: the greatest of admission's answers before the queue, by schemas.jobs.rank: 2n + 1 for the refusal after n
-- holds, 2n + 2 for the hold after n others.
ALTER TABLE jobs_state
    ADD COLUMN IF NOT EXISTS lane SimpleAggregateFunction(max, LowCardinality(String)),
    ADD COLUMN IF NOT EXISTS tier SimpleAggregateFunction(max, LowCardinality(String)),
    ADD COLUMN IF NOT EXISTS retry_of SimpleAggregateFunction(max, String),
    ADD COLUMN IF NOT EXISTS adjustments SimpleAggregateFunction(groupUniqArrayArray, Array(String)),
    ADD COLUMN IF NOT EXISTS held_at SimpleAggregateFunction(min, Nullable(DateTime64(3, 'UTC'))),
    ADD COLUMN IF NOT EXISTS held_until SimpleAggregateFunction(max, Nullable(DateTime64(3, 'UTC'))),
    ADD COLUMN IF NOT EXISTS answer SimpleAggregateFunction(max, Int64);

ALTER TABLE jobs_feed MODIFY QUERY
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
    argMinIfState(CAST(error_class, 'String'), offset, is_final) AS error_class,
    max(lane) AS lane,
    max(tier) AS tier,
    max(retry_of) AS retry_of,
    groupUniqArrayArray(adjustments) AS adjustments,
    minIf(toNullable(at), transition = 'held') AS held_at,
    maxIf(due_at, transition = 'held') AS held_until,
    max(multiIf(
        transition = 'rejected', 2 * toInt64(attempt) + 1,
        transition = 'held', 2 * toInt64(attempt) + 2,
        0)) AS answer
FROM
(
    SELECT *, toUInt8(transition IN ('succeeded', 'failed', 'canceled', 'aborted')) AS is_final
    FROM job_events
)
GROUP BY job_id;

-- wait_seconds: from the queue to the first start; total_seconds: from the queue to the end. Neither counts a hold.
CREATE OR REPLACE VIEW jobs AS
SELECT
    job_id, user_id, workflow, pipeline_id, created_at, queued_at, started_at,
    multiIf(
        outcome != '', outcome,
        started_at IS NOT NULL, 'running',
        queued_at IS NOT NULL, 'queued',
        answer > 0 AND answer % 2 = 0, 'held',
        rejected_at IS NOT NULL, 'rejected',
        'submitted') AS state,
    multiIf(outcome != '', toNullable(final_at), state = 'rejected', rejected_at, NULL) AS finished_at,
    error_class,
    (toUnixTimestamp64Milli(finished_at) - toUnixTimestamp64Milli(created_at)) / 1000 AS seconds,
    lane, tier, retry_of, adjustments, held_at, held_until,
    (toUnixTimestamp64Milli(started_at) - toUnixTimestamp64Milli(queued_at)) / 1000 AS wait_seconds,
    (toUnixTimestamp64Milli(finished_at) - toUnixTimestamp64Milli(queued_at)) / 1000 AS total_seconds
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
        argMinIfMerge(error_class) AS error_class,
        max(lane) AS lane,
        max(tier) AS tier,
        max(retry_of) AS retry_of,
        arraySort(groupUniqArrayArray(adjustments)) AS adjustments,
        min(held_at) AS held_at,
        max(held_until) AS held_until,
        max(answer) AS answer
    FROM jobs_state
    GROUP BY job_id
);

-- GPU-seconds by the minute in which their attempts ended, whatever became of these: what users, tiers and lanes got.
CREATE VIEW IF NOT EXISTS gpu_minutes AS
SELECT
    toStartOfMinute(toDateTime(assumeNotNull(ended_at), 'UTC')) AS minute, lane, tier, user_id, pool,
    count() AS attempts, sum(gpu_seconds) AS gpu_seconds
FROM stage_attempts
WHERE outcome != ''
GROUP BY minute, lane, tier, user_id, pool;
