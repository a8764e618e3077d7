"""The state of a partition as bytes, and back. Pure.

`partition_state` decides which records to write, `symbol_state` what stands in one of them.
"""
