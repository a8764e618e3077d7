-- Every version of every closed candle of market.candles.<timeframe>.v1; the view `candles` shows the newest of each window.
-- A null means that the source does not know; a missing field is refused.
CREATE TABLE IF NOT EXISTS {{database}}.candles_log {{on_cluster}}
(
    exchange         LowCardinality(String),
    symbol           LowCardinality(String),
    timeframe        LowCardinality(String),
    open_time_us     Int64 EPHEMERAL,
    open             String EPHEMERAL,
    high             String EPHEMERAL,
    low              String EPHEMERAL,
    close            String EPHEMERAL,
    volume           String EPHEMERAL,
    quote_volume     Nullable(String) EPHEMERAL '?',
    buy_volume       Nullable(String) EPHEMERAL '?',
    open_time        DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(open_time_us, 'UTC') CODEC(Delta, ZSTD(1)),
    open_dec         Decimal(38, 12) DEFAULT if(match(open, '^(0|[1-9][0-9]{0,19})([.][0-9]{1,12})?$'), toDecimal128OrZero(open, 12), toDecimal128(-1, 12)) CODEC(ZSTD(1)),
    high_dec         Decimal(38, 12) DEFAULT if(match(high, '^(0|[1-9][0-9]{0,19})([.][0-9]{1,12})?$'), toDecimal128OrZero(high, 12), toDecimal128(-1, 12)) CODEC(ZSTD(1)),
    low_dec          Decimal(38, 12) DEFAULT if(match(low, '^(0|[1-9][0-9]{0,19})([.][0-9]{1,12})?$'), toDecimal128OrZero(low, 12), toDecimal128(-1, 12)) CODEC(ZSTD(1)),
    close_dec        Decimal(38, 12) DEFAULT if(match(close, '^(0|[1-9][0-9]{0,19})([.][0-9]{1,12})?$'), toDecimal128OrZero(close, 12), toDecimal128(-1, 12)) CODEC(ZSTD(1)),
    volume_dec       Decimal(38, 12) DEFAULT if(match(volume, '^(0|[1-9][0-9]{0,24})([.][0-9]{1,12})?$'), toDecimal128OrZero(volume, 12), toDecimal128(-1, 12)) CODEC(ZSTD(1)),
    quote_volume_dec Nullable(Decimal(38, 12)) DEFAULT if(quote_volume IS NULL, NULL, if(match(ifNull(quote_volume, ''), '^(0|[1-9][0-9]{0,24})([.][0-9]{1,12})?$'), toDecimal128OrZero(ifNull(quote_volume, ''), 12), toDecimal128(-1, 12))) CODEC(ZSTD(1)),
    buy_volume_dec   Nullable(Decimal(38, 12)) DEFAULT if(buy_volume IS NULL, NULL, if(match(ifNull(buy_volume, ''), '^(0|[1-9][0-9]{0,24})([.][0-9]{1,12})?$'), toDecimal128OrZero(ifNull(buy_volume, ''), 12), toDecimal128(-1, 12))) CODEC(ZSTD(1)),
    trade_count      Nullable(Int64) DEFAULT -1 CODEC(ZSTD(1)),
    first_trade_id   Nullable(String) DEFAULT '' CODEC(ZSTD(1)),
    last_trade_id    Nullable(String) DEFAULT '' CODEC(ZSTD(1)),
    revision         UInt64 CODEC(Delta, ZSTD(1)),
    source           Enum8('' = 0, 'trades' = 1, 'exchange' = 2, 'mixed' = 3) CODEC(ZSTD(1)),
    coverage         Enum8('' = 0, 'contiguous' = 1, 'unverified' = 2, 'partial' = 3, 'gap' = 4, 'exchange' = 5) CODEC(ZSTD(1)),
    job              LowCardinality(String) DEFAULT '' CODEC(ZSTD(1)),
    k_topic          LowCardinality(String),
    k_partition      Int32 DEFAULT -1 CODEC(ZSTD(1)),
    k_offset         Int64 DEFAULT -1 CODEC(Delta, ZSTD(1)),
    CONSTRAINT market_set CHECK exchange != '' AND symbol != '' AND timeframe != '',
    CONSTRAINT prices_positive CHECK open_dec > 0 AND high_dec > 0 AND low_dec > 0 AND close_dec > 0,
    CONSTRAINT prices_ordered CHECK high_dec >= greatest(open_dec, close_dec) AND low_dec <= least(open_dec, close_dec),
    CONSTRAINT volumes_set CHECK volume_dec >= 0 AND ifNull(quote_volume_dec, toDecimal128(0, 12)) >= 0 AND ifNull(buy_volume_dec, toDecimal128(0, 12)) >= 0,
    CONSTRAINT trade_count_set CHECK ifNull(trade_count, 0) >= 0,
    CONSTRAINT trade_ids_set CHECK ifNull(first_trade_id, '-') != '' AND ifNull(last_trade_id, '-') != '',
    CONSTRAINT revision_set CHECK revision > 0,
    CONSTRAINT source_set CHECK source != '' AND coverage != '',
    CONSTRAINT open_time_in_range CHECK open_time >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND open_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    CONSTRAINT kafka_position_set CHECK k_topic != '' AND k_partition >= 0 AND k_offset >= 0,
    INDEX i_offset k_offset TYPE minmax GRANULARITY 1,
    PROJECTION p_offsets (SELECT k_topic, k_partition, min(k_offset), max(k_offset), count() GROUP BY k_topic, k_partition),
    PROJECTION p_latest (SELECT exchange, symbol, timeframe, max(open_time), argMax((open_dec, high_dec, low_dec, close_dec, volume_dec, coverage, revision), (open_time, revision)) GROUP BY exchange, symbol, timeframe)
)
ENGINE = {{engine}}
PARTITION BY toYYYYMM(open_time)
ORDER BY (exchange, symbol, timeframe, open_time, revision, k_topic, k_partition, k_offset)
SETTINGS {{deduplication_window}} = 10000, lightweight_mutation_projection_mode = 'rebuild', deduplicate_merge_projection_mode = 'rebuild';
