-- Candles of any length, made by the query: the window's length is a parameter, in seconds. Windows start at multiples of
-- it since 1970, multiples of a week on a Monday, as in the contracts; start is inclusive, end exclusive, both UTC.

-- From trades. Exact, ties in time by id. Example:
-- SELECT * FROM ohlc_from_trades(exchange = 'binance', symbol = 'BTC/USDT', interval_s = 90, start = '2026-11-15 00:00:00', end = '2026-11-16 00:00:00')
CREATE OR REPLACE VIEW {{database}}.ohlc_from_trades {{on_cluster}} AS
SELECT fromUnixTimestamp64Micro(intDiv(at_us - shift_us, interval_us) * interval_us + shift_us, 'UTC') AS open_time,
       argMin(t_price, t_order) AS open,
       max(t_price) AS high,
       min(t_price) AS low,
       argMax(t_price, t_order) AS close,
       sum(t_amount) AS volume,
       toDecimal128(roundBankers(sum(toDecimal256(t_price, 12) * toDecimal256(t_amount, 12)), 12), 12) AS quote_volume,
       if(countIf(t_side = 'unknown') = 0, sumIf(t_amount, t_side = 'buy'), NULL) AS buy_volume,
       count() AS trade_count
FROM (
    SELECT price AS t_price, amount AS t_amount, side AS t_side,
           (trade_time, length(trade_id), trade_id) AS t_order,
           toUnixTimestamp64Micro(trade_time) AS at_us,
           toInt64({interval_s:UInt32}) * 1000000 AS interval_us,
           if({interval_s:UInt32} % 604800 = 0, 345600000000, 0) AS shift_us
    FROM {{database}}.trades
    WHERE exchange = {exchange:String} AND symbol = {symbol:String}
      AND trade_time >= {start:DateTime64(6, 'UTC')} AND trade_time < {end:DateTime64(6, 'UTC')}
)
GROUP BY open_time
ORDER BY open_time;

-- From closed candles of a shorter timeframe, much faster. candles below candles_expected and coverage tell what is missing.
-- SELECT * FROM ohlc_from_candles(exchange = 'binance', symbol = 'BTC/USDT', timeframe = '1m', interval_s = 10800, start = '2026-11-15 00:00:00', end = '2026-11-16 00:00:00')
CREATE OR REPLACE VIEW {{database}}.ohlc_from_candles {{on_cluster}} AS
SELECT fromUnixTimestamp64Micro(intDiv(at_us - shift_us, interval_us) * interval_us + shift_us, 'UTC') AS open_time,
       argMin(c_open, at_us) AS open,
       max(c_high) AS high,
       min(c_low) AS low,
       argMax(c_close, at_us) AS close,
       sum(c_volume) AS volume,
       if(count(c_quote_volume) = count(), sum(c_quote_volume), NULL) AS quote_volume,
       if(count(c_buy_volume) = count(), sum(c_buy_volume), NULL) AS buy_volume,
       if(count(c_trade_count) = count(), sum(c_trade_count), NULL) AS trade_count,
       ['contiguous', 'exchange', 'unverified', 'partial', 'gap'][max(c_coverage)] AS coverage,
       count() AS candles,
       toUInt32({interval_s:UInt32} / transform({timeframe:String}, ['1s', '1m', '5m', '15m', '30m', '1h', '4h', '1d', '1w'], [1, 60, 300, 900, 1800, 3600, 14400, 86400, 604800], 1)) AS candles_expected
FROM (
    SELECT open AS c_open, high AS c_high, low AS c_low, close AS c_close, volume AS c_volume,
           quote_volume AS c_quote_volume, buy_volume AS c_buy_volume, trade_count AS c_trade_count,
           indexOf(['contiguous', 'exchange', 'unverified', 'partial', 'gap'], toString(coverage)) AS c_coverage,
           toUnixTimestamp64Micro(open_time) AS at_us,
           toInt64({interval_s:UInt32}) * 1000000 AS interval_us,
           if({interval_s:UInt32} % 604800 = 0, 345600000000, 0) AS shift_us
    FROM {{database}}.candles
    WHERE exchange = {exchange:String} AND symbol = {symbol:String} AND timeframe = {timeframe:String}
      AND open_time >= {start:DateTime64(6, 'UTC')} AND open_time < {end:DateTime64(6, 'UTC')}
)
GROUP BY open_time
ORDER BY open_time;
