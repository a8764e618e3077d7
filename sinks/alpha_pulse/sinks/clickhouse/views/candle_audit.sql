-- The newest revision of each window on both sides, joined by merging. The order begins with the time, because a filter on
-- exchange and timeframe leaves the projection in that order; with those two in front the engine merges row by row.
CREATE OR REPLACE VIEW {{database}}.candle_audit {{on_cluster}} AS
SELECT exchange, symbol, timeframe, open_time, ours.coverage AS coverage, ours.source AS source, ours.revision AS revision,
       ours.open AS open, theirs.open AS exchange_open, ours.open - theirs.open AS open_difference,
       ours.high AS high, theirs.high AS exchange_high, ours.high - theirs.high AS high_difference,
       ours.low AS low, theirs.low AS exchange_low, ours.low - theirs.low AS low_difference,
       ours.close AS close, theirs.close AS exchange_close, ours.close - theirs.close AS close_difference,
       ours.volume AS volume, theirs.volume AS exchange_volume, ours.volume - theirs.volume AS volume_difference,
       ours.quote_volume AS quote_volume, theirs.quote_volume AS exchange_quote_volume,
       ours.quote_volume - theirs.quote_volume AS quote_volume_difference,
       ours.trade_count AS trade_count, theirs.trade_count AS exchange_trade_count,
       ours.trade_count - theirs.trade_count AS trade_count_difference,
       ours.open = theirs.open AND ours.high = theirs.high AND ours.low = theirs.low AND ours.close = theirs.close
           AND ours.volume = theirs.volume AND ifNull(ours.quote_volume = theirs.quote_volume, true)
           AND ifNull(ours.trade_count = theirs.trade_count, true) AS equal
FROM (
    SELECT exchange, symbol, timeframe, open_time, open_dec AS open, high_dec AS high, low_dec AS low, close_dec AS close,
           volume_dec AS volume, quote_volume_dec AS quote_volume, trade_count, revision, source, coverage
    FROM {{database}}.candles_log
    ORDER BY open_time, symbol, exchange, timeframe, bitNot(revision)
    LIMIT 1 BY open_time, symbol, exchange, timeframe
) AS ours
INNER JOIN (
    SELECT exchange, symbol, timeframe, open_time, open_dec AS open, high_dec AS high, low_dec AS low, close_dec AS close,
           volume_dec AS volume, quote_volume_dec AS quote_volume, trade_count, revision, source, coverage
    FROM {{database}}.exchange_candles_log
    ORDER BY open_time, symbol, exchange, timeframe, bitNot(revision)
    LIMIT 1 BY open_time, symbol, exchange, timeframe
) AS theirs USING (open_time, symbol, exchange, timeframe)
SETTINGS join_algorithm = 'full_sorting_merge';
