"""ClickHouse's HTTP interface over the embedded engine: clients connect as to a server."""
