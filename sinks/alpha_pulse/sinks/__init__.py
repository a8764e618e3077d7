"""Topics to tables: every record of the market topics once into ClickHouse.

`lanes` gathers a partition's records and inserts them, `batching` decides what goes into an insert,
`clickhouse` makes tables and views and talks to the server. `library` stores without any of them.
"""
