-- The view candle_audit as it was, joined by merging: both sides come in the order of the sort key. A hash join, the default,
-- builds a table of one side and, since ClickHouse 25.10, a filter of each key, which here lets everything pass and costs more
-- than the join. Measured on a day of 200 symbols: less than half the time.
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
FROM {{database}}.candles AS ours
INNER JOIN {{database}}.exchange_candles AS theirs USING (exchange, symbol, timeframe, open_time)
SETTINGS join_algorithm = 'full_sorting_merge';
