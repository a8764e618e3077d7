-- The states of each symbol's stream, market.status.v1: live, disconnected, halted.
CREATE TABLE IF NOT EXISTS {{database}}.status_log {{on_cluster}}
(
    exchange         LowCardinality(String),
    symbol           LowCardinality(String),
    state            Enum8('' = 0, 'live' = 1, 'disconnected' = 2, 'halted' = 3) CODEC(ZSTD(1)),
    complete_until_us   Int64 EPHEMERAL,
    last_trade_time_us  Nullable(Int64) EPHEMERAL -1,
    complete_until   DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(complete_until_us, 'UTC') CODEC(Delta, ZSTD(1)),
    last_trade_time  Nullable(DateTime64(6, 'UTC')) DEFAULT if(last_trade_time_us IS NULL, NULL, fromUnixTimestamp64Micro(ifNull(last_trade_time_us, -1), 'UTC')) CODEC(ZSTD(1)),
    last_trade_id    Nullable(String) DEFAULT '' CODEC(ZSTD(1)),
    revision         UInt64 CODEC(Delta, ZSTD(1)),
    k_topic          LowCardinality(String),
    k_partition      Int32 DEFAULT -1 CODEC(ZSTD(1)),
    k_offset         Int64 DEFAULT -1 CODEC(Delta, ZSTD(1)),
    CONSTRAINT market_set CHECK exchange != '' AND symbol != '',
    CONSTRAINT state_set CHECK state != '',
    CONSTRAINT last_trade_id_set CHECK ifNull(last_trade_id, '-') != '',
    CONSTRAINT complete_until_in_range CHECK complete_until >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND complete_until < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    CONSTRAINT last_trade_time_in_range CHECK ifNull(last_trade_time, complete_until) >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND ifNull(last_trade_time, complete_until) < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    CONSTRAINT kafka_position_set CHECK k_topic != '' AND k_partition >= 0 AND k_offset >= 0,
    INDEX i_offset k_offset TYPE minmax GRANULARITY 1,
    PROJECTION p_offsets (SELECT k_topic, k_partition, min(k_offset), max(k_offset), count() GROUP BY k_topic, k_partition)
)
ENGINE = {{engine}}
PARTITION BY toYYYYMM(complete_until)
ORDER BY (exchange, symbol, revision, k_topic, k_partition, k_offset)
SETTINGS {{deduplication_window}} = 10000, lightweight_mutation_projection_mode = 'rebuild', deduplicate_merge_projection_mode = 'rebuild';
