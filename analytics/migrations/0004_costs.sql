-- What a GPU-second costs, by pool and resource class, from a point in time on. The pool '*' is every pool without a
-- price of its own. Filled from prices.toml.
CREATE TABLE IF NOT EXISTS prices
(
    pool String,
    resource_class String,
    valid_from DateTime64(3, 'UTC'),
    usd_per_gpu_second Float64
)
ENGINE = ReplacingMergeTree
ORDER BY (pool, resource_class, valid_from);

-- stage_attempts with the price that held when the attempt ended. Lost and failed attempts cost what they used.
CREATE VIEW IF NOT EXISTS stage_costs AS
SELECT
    a.job_id AS job_id, a.stage_index AS stage_index, a.stage AS stage, a.attempt AS attempt, a.outcome AS outcome,
    a.started_at AS started_at, a.ended_at AS ended_at, a.pool AS pool, a.resource_class AS resource_class,
    a.wait_seconds AS wait_seconds, a.run_seconds AS run_seconds, a.gpu_seconds AS gpu_seconds,
    if(own.pool != '', own.usd_per_gpu_second, every.usd_per_gpu_second) AS usd_per_gpu_second,
    a.gpu_seconds * usd_per_gpu_second AS cost_usd
FROM
(
    SELECT *, '*' AS any_pool, coalesce(ended_at, started_at, toDateTime64(0, 3, 'UTC')) AS priced_at FROM stage_attempts
) AS a
ASOF LEFT JOIN (SELECT * FROM prices FINAL) AS own
    ON own.pool = a.pool AND own.resource_class = a.resource_class AND own.valid_from <= a.priced_at
ASOF LEFT JOIN (SELECT * FROM prices FINAL) AS every
    ON every.pool = a.any_pool AND every.resource_class = a.resource_class AND every.valid_from <= a.priced_at;
