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
