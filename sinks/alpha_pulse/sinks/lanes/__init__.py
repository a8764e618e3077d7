"""From Kafka to inserts, exactly once: a lane gathers a partition's records into batches.

`consumer` polls, `lane` batches, `writer` inserts, `resume` decides where a restart goes on.
"""
