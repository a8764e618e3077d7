-- One constraint for all columns of a sort, named after it, as the types of the event's fields say: what is asked of the
-- rows stays the same. Until here each table named and grouped its own. The new ones come before the old ones go.

ALTER TABLE {{database}}.trades_log {{on_cluster}}
    ADD CONSTRAINT IF NOT EXISTS texts_set CHECK exchange != '' AND symbol != '' AND trade_id != '',
    ADD CONSTRAINT IF NOT EXISTS decimals_in_range CHECK price_dec > 0 AND amount_dec > 0,
    ADD CONSTRAINT IF NOT EXISTS choices_set CHECK side != '',
    ADD CONSTRAINT IF NOT EXISTS times_in_range CHECK trade_time >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND trade_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC') AND receive_time >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND receive_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    DROP CONSTRAINT IF EXISTS market_set,
    DROP CONSTRAINT IF EXISTS trade_id_set,
    DROP CONSTRAINT IF EXISTS side_set,
    DROP CONSTRAINT IF EXISTS price_positive,
    DROP CONSTRAINT IF EXISTS amount_positive,
    DROP CONSTRAINT IF EXISTS trade_time_in_range,
    DROP CONSTRAINT IF EXISTS receive_time_in_range;

ALTER TABLE {{database}}.candles_log {{on_cluster}}
    ADD CONSTRAINT IF NOT EXISTS texts_set CHECK exchange != '' AND symbol != '' AND timeframe != '' AND ifNull(first_trade_id, '-') != '' AND ifNull(last_trade_id, '-') != '',
    ADD CONSTRAINT IF NOT EXISTS times_in_range CHECK open_time >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND open_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    ADD CONSTRAINT IF NOT EXISTS decimals_in_range CHECK open_dec > 0 AND high_dec > 0 AND low_dec > 0 AND close_dec > 0 AND volume_dec >= 0 AND ifNull(quote_volume_dec, toDecimal128(0, 12)) >= 0 AND ifNull(buy_volume_dec, toDecimal128(0, 12)) >= 0,
    ADD CONSTRAINT IF NOT EXISTS numbers_in_range CHECK ifNull(trade_count, 0) >= 0,
    ADD CONSTRAINT IF NOT EXISTS choices_set CHECK source != '' AND coverage != '',
    DROP CONSTRAINT IF EXISTS market_set,
    DROP CONSTRAINT IF EXISTS prices_positive,
    DROP CONSTRAINT IF EXISTS volumes_set,
    DROP CONSTRAINT IF EXISTS trade_count_set,
    DROP CONSTRAINT IF EXISTS trade_ids_set,
    DROP CONSTRAINT IF EXISTS source_set,
    DROP CONSTRAINT IF EXISTS open_time_in_range;

ALTER TABLE {{database}}.exchange_candles_log {{on_cluster}}
    ADD CONSTRAINT IF NOT EXISTS texts_set CHECK exchange != '' AND symbol != '' AND timeframe != '' AND ifNull(first_trade_id, '-') != '' AND ifNull(last_trade_id, '-') != '',
    ADD CONSTRAINT IF NOT EXISTS times_in_range CHECK open_time >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND open_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    ADD CONSTRAINT IF NOT EXISTS decimals_in_range CHECK open_dec > 0 AND high_dec > 0 AND low_dec > 0 AND close_dec > 0 AND volume_dec >= 0 AND ifNull(quote_volume_dec, toDecimal128(0, 12)) >= 0 AND ifNull(buy_volume_dec, toDecimal128(0, 12)) >= 0,
    ADD CONSTRAINT IF NOT EXISTS numbers_in_range CHECK ifNull(trade_count, 0) >= 0,
    ADD CONSTRAINT IF NOT EXISTS choices_set CHECK source != '' AND coverage != '',
    DROP CONSTRAINT IF EXISTS market_set,
    DROP CONSTRAINT IF EXISTS prices_positive,
    DROP CONSTRAINT IF EXISTS volumes_set,
    DROP CONSTRAINT IF EXISTS trade_count_set,
    DROP CONSTRAINT IF EXISTS trade_ids_set,
    DROP CONSTRAINT IF EXISTS source_set,
    DROP CONSTRAINT IF EXISTS open_time_in_range;

ALTER TABLE {{database}}.gaps_log {{on_cluster}}
    ADD CONSTRAINT IF NOT EXISTS texts_set CHECK exchange != '' AND symbol != '' AND ifNull(first_trade_id, '-') != '' AND ifNull(last_trade_id, '-') != '',
    ADD CONSTRAINT IF NOT EXISTS times_in_range CHECK start_time >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND start_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC') AND end_time >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND end_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    ADD CONSTRAINT IF NOT EXISTS choices_set CHECK status != '',
    DROP CONSTRAINT IF EXISTS market_set,
    DROP CONSTRAINT IF EXISTS trade_ids_set,
    DROP CONSTRAINT IF EXISTS status_set,
    DROP CONSTRAINT IF EXISTS start_time_in_range,
    DROP CONSTRAINT IF EXISTS end_time_in_range;

ALTER TABLE {{database}}.status_log {{on_cluster}}
    ADD CONSTRAINT IF NOT EXISTS texts_set CHECK exchange != '' AND symbol != '' AND ifNull(last_trade_id, '-') != '',
    ADD CONSTRAINT IF NOT EXISTS choices_set CHECK state != '',
    ADD CONSTRAINT IF NOT EXISTS times_in_range CHECK complete_until >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND complete_until < toDateTime64('2100-01-01 00:00:00', 6, 'UTC') AND ifNull(last_trade_time, complete_until) >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND ifNull(last_trade_time, complete_until) < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    DROP CONSTRAINT IF EXISTS market_set,
    DROP CONSTRAINT IF EXISTS state_set,
    DROP CONSTRAINT IF EXISTS last_trade_id_set,
    DROP CONSTRAINT IF EXISTS complete_until_in_range,
    DROP CONSTRAINT IF EXISTS last_trade_time_in_range;

ALTER TABLE {{database}}.audits_log {{on_cluster}}
    ADD CONSTRAINT IF NOT EXISTS texts_set CHECK exchange != '' AND symbol != '' AND timeframe != '',
    ADD CONSTRAINT IF NOT EXISTS times_in_range CHECK open_time >= toDateTime64('2009-01-01 00:00:00', 6, 'UTC') AND open_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    ADD CONSTRAINT IF NOT EXISTS choices_set CHECK result != '' AND ifNull(coverage, 'contiguous') IN ('contiguous', 'unverified', 'partial', 'gap', 'exchange'),
    ADD CONSTRAINT IF NOT EXISTS numbers_in_range CHECK ifNull(candle_revision, 0) >= 0 AND ifNull(exchange_revision, 0) >= 0,
    DROP CONSTRAINT IF EXISTS market_set,
    DROP CONSTRAINT IF EXISTS result_set,
    DROP CONSTRAINT IF EXISTS coverage_known,
    DROP CONSTRAINT IF EXISTS revisions_set,
    DROP CONSTRAINT IF EXISTS open_time_in_range;

ALTER TABLE {{database}}.dead_letters_log {{on_cluster}}
    ADD CONSTRAINT IF NOT EXISTS texts_set CHECK identity != '',
    ADD CONSTRAINT IF NOT EXISTS numbers_in_range CHECK payload_bytes >= 0,
    ADD CONSTRAINT IF NOT EXISTS times_in_range CHECK time >= toDateTime64('1970-01-01 00:00:00', 6, 'UTC') AND time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC'),
    DROP CONSTRAINT IF EXISTS identity_set,
    DROP CONSTRAINT IF EXISTS payload_bytes_set,
    DROP CONSTRAINT IF EXISTS time_in_range;
