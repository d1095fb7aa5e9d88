-- name: users_cost
-- purpose: Who used how many GPU-seconds in the last N days, and what it cost
SELECT user_id, uniqExact(c.job_id) AS jobs, sum(c.gpu_seconds) AS gpu_seconds, sum(c.cost_usd) AS cost_usd
FROM stage_costs AS c
INNER JOIN jobs AS j ON j.job_id = c.job_id
WHERE j.created_at >= now() - toIntervalDay({days:UInt16})
GROUP BY user_id
ORDER BY cost_usd DESC, user_id
LIMIT 100
