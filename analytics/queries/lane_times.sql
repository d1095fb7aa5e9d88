-- name: lane_times
-- purpose: Wait and total time of jobs by lane and tier, of those that were queued in the last N hours
SELECT
    lane, tier, count() AS jobs, countIf(state = 'succeeded') AS succeeded, countIf(state = 'aborted') AS aborted,
    countIf(notEmpty(adjustments)) AS adjusted,
    quantile(0.5)(wait_seconds) AS wait_p50, quantile(0.9)(wait_seconds) AS wait_p90,
    quantile(0.99)(wait_seconds) AS wait_p99,
    quantileIf(0.5)(total_seconds, state = 'succeeded') AS total_p50,
    quantileIf(0.9)(total_seconds, state = 'succeeded') AS total_p90,
    quantileIf(0.99)(total_seconds, state = 'succeeded') AS total_p99
FROM jobs
WHERE queued_at >= now() - toIntervalHour({hours:UInt16})
GROUP BY lane, tier
ORDER BY lane, tier
