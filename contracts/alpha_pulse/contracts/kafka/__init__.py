"""Kafka for every role: connection, topics, publisher, readers (the extra `kafka`)."""
