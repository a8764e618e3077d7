-- The current state of each symbol's stream.
CREATE OR REPLACE VIEW {{database}}.status {{on_cluster}} AS
SELECT exchange, symbol, state, complete_until, last_trade_time, last_trade_id, revision
FROM {{database}}.status_log
ORDER BY exchange, symbol, revision DESC, k_offset DESC
LIMIT 1 BY exchange, symbol;
