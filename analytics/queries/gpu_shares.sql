-- name: gpu_shares
-- purpose: Who got which share of the GPU-seconds of each of the last N minutes, by user, tier and lane
SELECT
    minute, lane, tier, user_id, sum(gpu_seconds) AS used,
    if(sum(used) OVER (PARTITION BY minute) > 0, used / sum(used) OVER (PARTITION BY minute), 0) AS share
FROM gpu_minutes
WHERE minute >= now() - toIntervalMinute({minutes:UInt16})
GROUP BY minute, lane, tier, user_id
ORDER BY minute, used DESC, lane, tier, user_id
LIMIT 100000
