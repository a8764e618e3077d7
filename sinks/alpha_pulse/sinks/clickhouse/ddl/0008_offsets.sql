-- How far each Kafka partition is settled: every earlier offset is in its table or in skipped_offsets. The last row stands;
-- a row of an older generation counts for nothing (rows were deleted by hand since, or the topic was made anew).
CREATE TABLE IF NOT EXISTS {{database}}.sink_progress {{on_cluster}}
(
    k_topic          LowCardinality(String) COMMENT 'Kafka topic; #n after it from the second epoch on',
    k_partition      Int32 COMMENT 'Kafka partition',
    generation       UInt32 COMMENT 'raised when rows are deleted by hand',
    settled_before   Int64 COMMENT 'every earlier offset is stored or skipped',
    updated_at       DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') COMMENT 'clock of ClickHouse, UTC'
)
ENGINE = {{replacing_engine}}(updated_at)
ORDER BY (k_topic, k_partition, generation);

-- Offsets that are in no table, and why: a row that ClickHouse refused (its dead letter is in Kafka), or retention that
-- deleted records before they were stored.
CREATE TABLE IF NOT EXISTS {{database}}.skipped_offsets {{on_cluster}}
(
    k_topic          LowCardinality(String) COMMENT 'Kafka topic; #n after it from the second epoch on',
    k_partition      Int32 COMMENT 'Kafka partition',
    first_offset     Int64 COMMENT 'first offset skipped',
    last_offset      Int64 COMMENT 'last offset skipped, inclusive',
    reason           Enum8('refused' = 1, 'retention' = 2) COMMENT 'refused: a dead letter tells the error; retention: Kafka deleted it before it was stored',
    at               DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') COMMENT 'clock of ClickHouse, UTC',
    CONSTRAINT range_in_order CHECK last_offset >= first_offset AND first_offset >= 0
)
ENGINE = {{replacing_engine}}(at)
ORDER BY (k_topic, k_partition, first_offset, last_offset);

-- Which life of a topic is current, and its generation. No row: epoch 1, generation 1.
CREATE TABLE IF NOT EXISTS {{database}}.topic_epochs {{on_cluster}}
(
    topic            LowCardinality(String) COMMENT 'Kafka topic',
    epoch            UInt32 COMMENT 'raised when the topic was deleted and made anew',
    generation       UInt32 COMMENT 'raised when rows of it were deleted by hand',
    reason           String COMMENT 'why, for people',
    at               DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') COMMENT 'clock of ClickHouse, UTC'
)
ENGINE = {{engine}}
ORDER BY (topic, epoch, generation);
