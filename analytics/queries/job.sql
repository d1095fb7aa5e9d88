-- name: job
-- purpose: One job: its state, its times, what it cost
SELECT
    job_id, user_id, workflow, pipeline_id, state, created_at, queued_at, started_at, finished_at, seconds, error_class,
    (SELECT sum(gpu_seconds) FROM stage_costs WHERE job_id = {job_id:String}) AS gpu_seconds,
    (SELECT sum(cost_usd) FROM stage_costs WHERE job_id = {job_id:String}) AS cost_usd
FROM jobs
WHERE job_id = {job_id:String}
