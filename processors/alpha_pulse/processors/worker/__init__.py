"""The trade path inside a Faust worker: partitions, their transactions, and what they count.

Everything that sees Kafka or a clock is here; what a record means is decided by the kernel.
"""
