"""What the roles share: logs, metrics, stopping, publishing to Kafka and reading from it in bulk.

A reader of the topics needs none of it.
"""
