-- What could not be accepted, with its bytes and the reason: market.deadletters.v1.
CREATE TABLE IF NOT EXISTS {{database}}.dead_letters_log {{on_cluster}}
(
    identity         String CODEC(ZSTD(3)),
    reason           LowCardinality(String),
    error            String CODEC(ZSTD(3)),
    exchange         LowCardinality(Nullable(String)) DEFAULT NULL,
    symbol           LowCardinality(Nullable(String)) DEFAULT NULL,
    topic            LowCardinality(Nullable(String)) DEFAULT NULL,
    partition        Nullable(Int32) DEFAULT NULL CODEC(ZSTD(1)),
    offset           Nullable(Int64) DEFAULT NULL CODEC(ZSTD(1)),
    payload_base64   String CODEC(ZSTD(3)),
    payload_bytes    Int64 DEFAULT -1 CODEC(ZSTD(1)),
    time_us          Int64 EPHEMERAL -1,
    time             DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(time_us, 'UTC') CODEC(Delta, ZSTD(1)),
    k_topic          LowCardinality(String),
    k_partition      Int32 DEFAULT -1 CODEC(ZSTD(1)),
    k_offset         Int64 DEFAULT -1 CODEC(Delta, ZSTD(1)),
    CONSTRAINT identity_set CHECK identity != '',
    CONSTRAINT reason_set CHECK reason != '',
    CONSTRAINT payload_bytes_set CHECK payload_bytes >= 0,
    CONSTRAINT time_in_range CHECK time >= toDateTime64('1970-01-01 00:00:00', 6, 'UTC') AND time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    CONSTRAINT kafka_position_set CHECK k_topic != '' AND k_partition >= 0 AND k_offset >= 0,
    INDEX i_offset k_offset TYPE minmax GRANULARITY 1,
    PROJECTION p_offsets (SELECT k_topic, k_partition, min(k_offset), max(k_offset), count() GROUP BY k_topic, k_partition)
)
ENGINE = {{engine}}
PARTITION BY toYYYYMM(time)
ORDER BY (identity, k_topic, k_partition, k_offset)
SETTINGS {{deduplication_window}} = 10000, lightweight_mutation_projection_mode = 'rebuild', deduplicate_merge_projection_mode = 'rebuild';
