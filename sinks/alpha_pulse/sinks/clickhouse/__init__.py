"""ClickHouse as the sinks use it: the client, the tables and views, migrations and users."""
