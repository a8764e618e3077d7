-- Trades, once each. Example: SELECT * FROM trades WHERE exchange = 'binance' AND symbol = 'BTC/USDT' AND trade_time >= now() - INTERVAL 1 MINUTE ORDER BY trade_time
CREATE OR REPLACE VIEW {{database}}.trades {{on_cluster}} AS
SELECT exchange, symbol, trade_id, side, price_dec AS price, amount_dec AS amount, trade_time, receive_time, job
FROM {{database}}.trades_log
LIMIT 1 BY exchange, symbol, trade_time, trade_id;
