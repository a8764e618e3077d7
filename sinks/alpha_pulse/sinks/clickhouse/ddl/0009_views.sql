-- What readers use: one row of each identity. Filters on key columns (exchange, symbol, timeframe, times) are pushed below
-- the LIMIT BY; filters on values see the newest revision only.

-- Trades, once each. Example: SELECT * FROM trades WHERE exchange = 'binance' AND symbol = 'BTC/USDT' AND trade_time >= now() - INTERVAL 1 MINUTE ORDER BY trade_time
CREATE OR REPLACE VIEW {{database}}.trades {{on_cluster}} AS
SELECT exchange, symbol, trade_id, side, price_dec AS price, amount_dec AS amount, trade_time, receive_time, job
FROM {{database}}.trades_log
LIMIT 1 BY exchange, symbol, trade_time, trade_id;

-- The newest revision of each closed candle.
CREATE OR REPLACE VIEW {{database}}.candles {{on_cluster}} AS
SELECT exchange, symbol, timeframe, open_time, open_dec AS open, high_dec AS high, low_dec AS low, close_dec AS close,
       volume_dec AS volume, quote_volume_dec AS quote_volume, buy_volume_dec AS buy_volume, trade_count,
       first_trade_id, last_trade_id, revision, source, coverage, job
FROM {{database}}.candles_log
ORDER BY exchange, symbol, timeframe, open_time, revision DESC
LIMIT 1 BY exchange, symbol, timeframe, open_time;

-- The exchange's own closed candles.
CREATE OR REPLACE VIEW {{database}}.exchange_candles {{on_cluster}} AS
SELECT exchange, symbol, timeframe, open_time, open_dec AS open, high_dec AS high, low_dec AS low, close_dec AS close,
       volume_dec AS volume, quote_volume_dec AS quote_volume, buy_volume_dec AS buy_volume, trade_count,
       first_trade_id, last_trade_id, revision, source, coverage, job
FROM {{database}}.exchange_candles_log
ORDER BY exchange, symbol, timeframe, open_time, revision DESC
LIMIT 1 BY exchange, symbol, timeframe, open_time;

-- Our candles against the exchange's own, field by field; a null difference: one side does not know the field.
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
INNER JOIN {{database}}.exchange_candles AS theirs USING (exchange, symbol, timeframe, open_time);

-- The processors' own findings, newest revision of each window: also what only one side has.
CREATE OR REPLACE VIEW {{database}}.audits {{on_cluster}} AS
SELECT exchange, symbol, timeframe, open_time, result, coverage, differences, candle_revision, exchange_revision, revision
FROM {{database}}.audits_log
ORDER BY exchange, symbol, timeframe, open_time, revision DESC
LIMIT 1 BY exchange, symbol, timeframe, open_time;

-- Missing trades, the newest revision of each gap: open, filled, unfillable.
CREATE OR REPLACE VIEW {{database}}.gaps {{on_cluster}} AS
SELECT exchange, symbol, first_trade_id, last_trade_id, start_time, end_time,
       dateDiff('microsecond', start_time, end_time) / 1e6 AS length_s, status, reason, revision, job
FROM {{database}}.gaps_log
ORDER BY exchange, symbol, start_time, first_trade_id, revision DESC, k_offset DESC
LIMIT 1 BY exchange, symbol, start_time, first_trade_id;

-- The current state of each symbol's stream.
CREATE OR REPLACE VIEW {{database}}.status {{on_cluster}} AS
SELECT exchange, symbol, state, complete_until, last_trade_time, last_trade_id, revision
FROM {{database}}.status_log
ORDER BY exchange, symbol, revision DESC, k_offset DESC
LIMIT 1 BY exchange, symbol;

-- The last trade of each symbol, from a projection.
CREATE OR REPLACE VIEW {{database}}.latest {{on_cluster}} AS
SELECT exchange, symbol, at AS trade_time, trade.1 AS trade_id, trade.2 AS price, trade.3 AS amount, trade.4 AS side,
       received AS receive_time
FROM (
    SELECT exchange, symbol, max(trade_time) AS at,
           argMax((trade_id, price_dec, amount_dec, side), (trade_time, length(trade_id), trade_id)) AS trade,
           max(receive_time) AS received
    FROM {{database}}.trades_log
    GROUP BY exchange, symbol
);

-- The last closed candle of each symbol and timeframe, from a projection.
CREATE OR REPLACE VIEW {{database}}.latest_candles {{on_cluster}} AS
SELECT exchange, symbol, timeframe, at AS open_time, candle.1 AS open, candle.2 AS high, candle.3 AS low, candle.4 AS close,
       candle.5 AS volume, candle.6 AS coverage, candle.7 AS revision
FROM (
    SELECT exchange, symbol, timeframe, max(open_time) AS at,
           argMax((open_dec, high_dec, low_dec, close_dec, volume_dec, coverage, revision), (open_time, revision)) AS candle
    FROM {{database}}.candles_log
    GROUP BY exchange, symbol, timeframe
);

-- How old the newest trade and the newest closed minute of each symbol are; null: none yet.
CREATE OR REPLACE VIEW {{database}}.freshness {{on_cluster}} AS
SELECT exchange, symbol, trade.at AS last_trade_time, trade.received AS last_receive_time, minute.at AS last_minute,
       dateDiff('millisecond', last_trade_time, now64(6, 'UTC')) / 1e3 AS trade_age_s,
       dateDiff('millisecond', last_minute, now64(6, 'UTC')) / 1e3 - 60 AS candle_age_s
FROM (
    SELECT exchange, symbol, toNullable(max(trade_time)) AS at, toNullable(max(receive_time)) AS received
    FROM {{database}}.trades_log
    GROUP BY exchange, symbol
) AS trade
FULL OUTER JOIN (
    SELECT exchange, symbol, timeframe, toNullable(max(open_time)) AS at
    FROM {{database}}.candles_log
    WHERE timeframe = '1m'
    GROUP BY exchange, symbol, timeframe
) AS minute USING (exchange, symbol);

-- What could not be accepted, once each.
CREATE OR REPLACE VIEW {{database}}.dead_letters {{on_cluster}} AS
SELECT identity, reason, error, exchange, symbol, topic, partition, offset, payload_base64, payload_bytes, time
FROM {{database}}.dead_letters_log
LIMIT 1 BY identity;
