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
       {{coverages}}[max(c_coverage)] AS coverage,
       count() AS candles,
       toUInt32({interval_s:UInt32} / greatest({{timeframe_seconds}}[indexOf({{timeframes}}, {timeframe:String})], 1)) AS candles_expected
FROM (
    SELECT open AS c_open, high AS c_high, low AS c_low, close AS c_close, volume AS c_volume,
           quote_volume AS c_quote_volume, buy_volume AS c_buy_volume, trade_count AS c_trade_count,
           indexOf({{coverages}}, toString(coverage)) AS c_coverage,
           toUnixTimestamp64Micro(open_time) AS at_us,
           toInt64({interval_s:UInt32}) * 1000000 AS interval_us,
           if({interval_s:UInt32} % 604800 = 0, 345600000000, 0) AS shift_us
    FROM {{database}}.candles
    WHERE exchange = {exchange:String} AND symbol = {symbol:String} AND timeframe = {timeframe:String}
      -- Asked once, and of no row: an unknown timeframe has none. (Its length above is 1 only to come this far.)
      AND (SELECT throwIf(NOT has({{timeframes}}, {timeframe:String}), concat('expected a timeframe, one of ', arrayStringConcat({{timeframes}}, ' ')))) = 0
      AND open_time >= {start:DateTime64(6, 'UTC')} AND open_time < {end:DateTime64(6, 'UTC')}
)
GROUP BY open_time
ORDER BY open_time;
