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
