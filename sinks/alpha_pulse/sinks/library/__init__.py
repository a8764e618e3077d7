"""Storage for the library in any database of SQLAlchemy, without Kafka and ClickHouse."""
