-- candle_audit for many symbols at once. In the tables a day of one symbol lies together; of 200 symbols it is a thin slice of
-- everything: all their granules were read for it, and sorted into the order of the join. A projection, part of the same
-- parts as the rows and so never behind them, keeps what the audit compares in the order of time.
-- bitNot(revision) falls as the revision grows: the newest comes first, and what is read in this order needs no sorting.
ALTER TABLE {{database}}.candles_log {{on_cluster}} ADD PROJECTION IF NOT EXISTS p_time (SELECT exchange, symbol, timeframe, open_time, open_dec, high_dec, low_dec, close_dec, volume_dec, quote_volume_dec, trade_count, revision, source, coverage ORDER BY exchange, timeframe, open_time, symbol, bitNot(revision));
ALTER TABLE {{database}}.candles_log {{on_cluster}} MATERIALIZE PROJECTION IF EXISTS p_time;

ALTER TABLE {{database}}.exchange_candles_log {{on_cluster}} ADD PROJECTION IF NOT EXISTS p_time (SELECT exchange, symbol, timeframe, open_time, open_dec, high_dec, low_dec, close_dec, volume_dec, quote_volume_dec, trade_count, revision, source, coverage ORDER BY exchange, timeframe, open_time, symbol, bitNot(revision));
ALTER TABLE {{database}}.exchange_candles_log {{on_cluster}} MATERIALIZE PROJECTION IF EXISTS p_time;

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
