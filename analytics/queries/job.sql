-- name: job
-- purpose: One job: its state, its times, what it cost
SELECT
    job_id, user_id, workflow, pipeline_id, lane, tier, state, created_at, held_at, held_until, queued_at, started_at,
    finished_at, wait_seconds, seconds, error_class, adjustments, retry_of,
    (SELECT sum(gpu_seconds) FROM stage_costs WHERE job_id = {job_id:String}) AS gpu_seconds,
    (SELECT sum(cost_usd) FROM stage_costs WHERE job_id = {job_id:String}) AS cost_usd
FROM jobs
WHERE job_id = {job_id:String}
