-- Missing trades, market.gaps.v1: every revision of every gap.
CREATE TABLE IF NOT EXISTS {{database}}.gaps_log {{on_cluster}}
(
    exchange         LowCardinality(String),
    symbol           LowCardinality(String),
    first_trade_id   Nullable(String) DEFAULT '' CODEC(ZSTD(1)),
    last_trade_id    Nullable(String) DEFAULT '' CODEC(ZSTD(1)),
    start_time_us    Int64 EPHEMERAL,
    end_time_us      Int64 EPHEMERAL,
    start_time       DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(start_time_us, 'UTC') CODEC(Delta, ZSTD(1)),
    end_time         DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(end_time_us, 'UTC') CODEC(Delta, ZSTD(1)),
    status           Enum8('' = 0, 'open' = 1, 'filled' = 2, 'unfillable' = 3) CODEC(ZSTD(1)),
    reason           String CODEC(ZSTD(3)),
    revision         UInt64 CODEC(Delta, ZSTD(1)),
    job              LowCardinality(String) DEFAULT '' CODEC(ZSTD(1)),
    k_topic          LowCardinality(String),
    k_partition      Int32 DEFAULT -1 CODEC(ZSTD(1)),
    k_offset         Int64 DEFAULT -1 CODEC(Delta, ZSTD(1)),
    CONSTRAINT market_set CHECK exchange != '' AND symbol != '',
    CONSTRAINT trade_ids_set CHECK ifNull(first_trade_id, '-') != '' AND ifNull(last_trade_id, '-') != '',
    CONSTRAINT status_set CHECK status != '',
    CONSTRAINT start_time_in_range CHECK start_time >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND start_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    CONSTRAINT end_time_in_range CHECK end_time >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND end_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    CONSTRAINT kafka_position_set CHECK k_topic != '' AND k_partition >= 0 AND k_offset >= 0,
    INDEX i_offset k_offset TYPE minmax GRANULARITY 1,
    PROJECTION p_offsets (SELECT k_topic, k_partition, min(k_offset), max(k_offset), count() GROUP BY k_topic, k_partition)
)
ENGINE = {{engine}}
PARTITION BY toYYYYMM(start_time)
ORDER BY (exchange, symbol, start_time, revision, k_topic, k_partition, k_offset)
SETTINGS {{deduplication_window}} = 10000, lightweight_mutation_projection_mode = 'rebuild', deduplicate_merge_projection_mode = 'rebuild';
