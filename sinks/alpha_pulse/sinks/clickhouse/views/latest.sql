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
