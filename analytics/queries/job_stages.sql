-- name: job_stages
-- purpose: The attempts of a job's stages in their order: wait, run, cost
SELECT
    stage, attempt, outcome, started_at, ended_at, pool, resource_class, wait_seconds, run_seconds, gpu_seconds, cost_usd
FROM stage_costs
WHERE job_id = {job_id:String}
ORDER BY stage_index, attempt
