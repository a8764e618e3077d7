"""Topics to tables: exactly once into ClickHouse."""
