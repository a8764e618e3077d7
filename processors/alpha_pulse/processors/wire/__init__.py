"""Records as Kafka carries them, read and written without an object for each.

`records` is the format, `ready_batch` hands it to aiokafka, `compiler` is numba as used here.
"""
