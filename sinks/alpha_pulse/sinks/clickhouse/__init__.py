"""ClickHouse as the sinks use it: the client, users, and a schema that follows from the kinds.

`tables` and `columns` say what a kind's log table holds, `generated` its SQL; `ddl/` changes older
databases, `views/` is what no kind says. `migrate` applies all of it.
"""
