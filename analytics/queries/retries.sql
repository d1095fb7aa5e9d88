-- name: retries
-- purpose: Failed attempts of the last N hours by stage and error class, how long the next one waited, what it brought
SELECT
    a.stage AS stage, if(a.outcome = 'stage_lost', 'lost', a.error_class) AS error_class, count() AS failures,
    uniqExact(a.job_id) AS jobs, uniqExactIf(a.job_id, j.state = 'succeeded') AS jobs_succeeded_later,
    quantile(0.5)((toUnixTimestamp64Milli(a.due_at) - toUnixTimestamp64Milli(a.ended_at)) / 1000) AS delay_p50,
    quantile(0.99)((toUnixTimestamp64Milli(a.due_at) - toUnixTimestamp64Milli(a.ended_at)) / 1000) AS delay_p99,
    sum(a.gpu_seconds) AS gpu_seconds
FROM stage_attempts AS a
INNER JOIN jobs AS j ON j.job_id = a.job_id
WHERE a.outcome IN ('stage_failed', 'stage_lost') AND a.ended_at >= now() - toIntervalHour({hours:UInt16})
GROUP BY stage, error_class
ORDER BY stage, error_class
