-- name: stage_times
-- purpose: Wait and run of each stage in the last N hours, as percentiles over finished attempts
SELECT
    stage, outcome, count() AS attempts,
    quantile(0.5)(wait_seconds) AS wait_p50, quantile(0.95)(wait_seconds) AS wait_p95,
    quantile(0.5)(run_seconds) AS run_p50, quantile(0.95)(run_seconds) AS run_p95
FROM stage_attempts
WHERE outcome != '' AND ended_at >= now() - toIntervalHour({hours:UInt16})
GROUP BY stage, outcome
ORDER BY stage, outcome
