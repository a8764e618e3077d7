-- Every record of market.trades.v1 once, sorted by identity, Kafka position last: the data and the offset store in one.
-- The wire's names (price, trade_time_us, ...) are EPHEMERAL text and numbers; bad text becomes -1, which a CHECK refuses,
-- because ClickHouse would silently cut a 13th digit and read '', null or a missing field as 0.
CREATE TABLE IF NOT EXISTS {{database}}.trades_log {{on_cluster}}
(
    exchange         LowCardinality(String),
    symbol           LowCardinality(String),
    trade_id         String CODEC(ZSTD(3)),
    side             Enum8('' = 0, 'unknown' = 1, 'buy' = 2, 'sell' = 3) CODEC(ZSTD(1)),
    price            String EPHEMERAL,
    amount           String EPHEMERAL,
    trade_time_us    Int64 EPHEMERAL,
    receive_time_us  Int64 EPHEMERAL,
    price_dec        Decimal(38, 12) DEFAULT if(match(price, '^(0|[1-9][0-9]{0,19})([.][0-9]{1,12})?$'), toDecimal128OrZero(price, 12), toDecimal128(-1, 12)) CODEC(ZSTD(1)),
    amount_dec       Decimal(38, 12) DEFAULT if(match(amount, '^(0|[1-9][0-9]{0,19})([.][0-9]{1,12})?$'), toDecimal128OrZero(amount, 12), toDecimal128(-1, 12)) CODEC(ZSTD(1)),
    trade_time       DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(trade_time_us, 'UTC') CODEC(Delta, ZSTD(1)),
    receive_time     DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(receive_time_us, 'UTC') CODEC(Delta, ZSTD(1)),
    job              LowCardinality(String) DEFAULT '' CODEC(ZSTD(1)),
    k_topic          LowCardinality(String),
    k_partition      Int32 DEFAULT -1 CODEC(ZSTD(1)),
    k_offset         Int64 DEFAULT -1 CODEC(Delta, ZSTD(1)),
    CONSTRAINT market_set CHECK exchange != '' AND symbol != '',
    CONSTRAINT trade_id_set CHECK trade_id != '',
    CONSTRAINT side_set CHECK side != '',
    CONSTRAINT price_positive CHECK price_dec > 0,
    CONSTRAINT amount_positive CHECK amount_dec > 0,
    CONSTRAINT trade_time_in_range CHECK trade_time >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND trade_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    CONSTRAINT receive_time_in_range CHECK receive_time >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND receive_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    CONSTRAINT kafka_position_set CHECK k_topic != '' AND k_partition >= 0 AND k_offset >= 0,
    INDEX i_offset k_offset TYPE minmax GRANULARITY 1,
    PROJECTION p_offsets (SELECT k_topic, k_partition, min(k_offset), max(k_offset), count() GROUP BY k_topic, k_partition),
    PROJECTION p_latest (SELECT exchange, symbol, max(trade_time), argMax((trade_id, price_dec, amount_dec, side), (trade_time, length(trade_id), trade_id)), max(receive_time) GROUP BY exchange, symbol)
)
ENGINE = {{engine}}
PARTITION BY toYYYYMM(trade_time)
ORDER BY (exchange, symbol, trade_time, trade_id, k_topic, k_partition, k_offset)
SETTINGS {{deduplication_window}} = 10000, lightweight_mutation_projection_mode = 'rebuild', deduplicate_merge_projection_mode = 'rebuild';
