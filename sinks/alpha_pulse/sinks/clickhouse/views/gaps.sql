-- Missing trades, the newest revision of each gap: open, filled, unfillable.
CREATE OR REPLACE VIEW {{database}}.gaps {{on_cluster}} AS
SELECT exchange, symbol, first_trade_id, last_trade_id, start_time, end_time,
       dateDiff('microsecond', start_time, end_time) / 1e6 AS length_s, status, reason, revision, job
FROM {{database}}.gaps_log
ORDER BY exchange, symbol, start_time, first_trade_id, revision DESC, k_offset DESC
LIMIT 1 BY exchange, symbol, start_time, first_trade_id;
