-- Each closed candle against the exchange's own, as the processors found it: market.audits.v1.
CREATE TABLE IF NOT EXISTS {{database}}.audits_log {{on_cluster}}
(
    exchange         LowCardinality(String),
    symbol           LowCardinality(String),
    timeframe        LowCardinality(String),
    open_time_us     Int64 EPHEMERAL,
    open_time        DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(open_time_us, 'UTC') CODEC(Delta, ZSTD(1)),
    result           Enum8('' = 0, 'equal' = 1, 'different' = 2, 'missing_exchange' = 3, 'missing_ours' = 4) CODEC(ZSTD(1)),
    coverage         LowCardinality(Nullable(String)) DEFAULT '' CODEC(ZSTD(1)),
    differences      Array(Tuple(field String, ours Nullable(String), exchange Nullable(String))) CODEC(ZSTD(1)),
    candle_revision  Nullable(Int64) DEFAULT -1 CODEC(ZSTD(1)),
    exchange_revision Nullable(Int64) DEFAULT -1 CODEC(ZSTD(1)),
    revision         UInt64 CODEC(Delta, ZSTD(1)),
    k_topic          LowCardinality(String),
    k_partition      Int32 DEFAULT -1 CODEC(ZSTD(1)),
    k_offset         Int64 DEFAULT -1 CODEC(Delta, ZSTD(1)),
    CONSTRAINT market_set CHECK exchange != '' AND symbol != '' AND timeframe != '',
    CONSTRAINT result_set CHECK result != '',
    CONSTRAINT coverage_known CHECK ifNull(coverage, 'contiguous') IN ('contiguous', 'unverified', 'partial', 'gap', 'exchange'),
    CONSTRAINT revisions_set CHECK ifNull(candle_revision, 0) >= 0 AND ifNull(exchange_revision, 0) >= 0,
    CONSTRAINT open_time_in_range CHECK open_time >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND open_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    CONSTRAINT kafka_position_set CHECK k_topic != '' AND k_partition >= 0 AND k_offset >= 0,
    INDEX i_offset k_offset TYPE minmax GRANULARITY 1,
    PROJECTION p_offsets (SELECT k_topic, k_partition, min(k_offset), max(k_offset), count() GROUP BY k_topic, k_partition)
)
ENGINE = {{engine}}
PARTITION BY toYYYYMM(open_time)
ORDER BY (exchange, symbol, timeframe, open_time, revision, k_topic, k_partition, k_offset)
SETTINGS {{deduplication_window}} = 10000, lightweight_mutation_projection_mode = 'rebuild', deduplicate_merge_projection_mode = 'rebuild';
