-- Every record of jobs.events, once, as it stands in Kafka. Repeats of an event (same event_id) are rows of their own.
-- No PARTITION BY: times are the writers', a block must never fail or dedup differently because of one of them.
-- record_hash is 64 bits of BLAKE2b over offset, key and value, for comparing with Kafka.
CREATE TABLE IF NOT EXISTS job_events
(
    topic LowCardinality(String),
    partition UInt32,
    offset UInt64,
    record_hash UInt64,
    event_id String,
    job_id String,
    user_id String,
    workflow LowCardinality(String),
    pipeline_id LowCardinality(String),
    transition LowCardinality(String),
    stage LowCardinality(String),
    stage_index Int32,
    stage_count Int32,
    attempt Int32,
    at DateTime64(3, 'UTC'),
    created_at DateTime64(3, 'UTC'),
    slot Nullable(Int32),
    epoch Nullable(Int64),
    pool LowCardinality(String),
    resource_class LowCardinality(String),
    model_version LowCardinality(String),
    wait_seconds Nullable(Float64),
    run_seconds Nullable(Float64),
    gpu_seconds Nullable(Float64),
    error_class LowCardinality(String),
    error_message String,
    artefacts Array(Tuple(role String, uri String, sha256 String, bytes Int64, media_type String)),
    traceparent String,
    stored_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = MergeTree
ORDER BY (job_id, partition, offset)
SETTINGS non_replicated_deduplication_window = 10000;
