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
