"""ClickHouse's users: least rights, repeatable statements, no password in them."""

from dataclasses import replace

import pytest

from alpha_pulse.contracts.config import ClickHouseConfig, Config, SetupConfig
from alpha_pulse.contracts.errors import ConfigError
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.users import accounts, user_statements

SETUP = SetupConfig(
    writer_password="canary-w", migrator_password="canary-m", reader_password="canary-r"
)
CONFIG = Config(setup=SETUP)


def of(user: str, config: Config = CONFIG) -> list[str]:
    return [
        statement for statement in user_statements(config) if f"`alpha_pulse_{user}`" in statement
    ]


def test_no_statement_carries_a_password() -> None:
    statements = list(user_statements(CONFIG))
    assert len(statements) >= 9
    assert not [statement for statement in statements if "canary" in statement]


def test_a_user_without_a_password_is_not_made() -> None:
    assert [account.name for account in accounts(Config())] == []
    only = replace(CONFIG, setup=SetupConfig(reader_password="x"))
    assert [account.name for account in accounts(only)] == ["alpha_pulse_reader"]


def test_each_user_may_do_the_least_that_it_needs() -> None:
    def grants(user: str) -> list[str]:
        return [statement for statement in of(user) if statement.startswith("GRANT")]

    assert grants("reader") == ["GRANT SELECT ON alpha_pulse.* TO `alpha_pulse_reader`"]
    assert grants("writer") == [
        "GRANT SELECT, INSERT ON alpha_pulse.* TO `alpha_pulse_writer`",
        "GRANT SELECT ON system.processes TO `alpha_pulse_writer`",
    ]
    assert all("DROP TABLE" not in grant for grant in grants("migrator"))
    assert any("readonly = 2" in statement for statement in of("reader"))


def test_a_cluster_makes_its_users_everywhere() -> None:
    config = replace(CONFIG, clickhouse=ClickHouseConfig(cluster="main"))
    assert all(" ON CLUSTER main" in statement for statement in user_statements(config))


def test_a_hostile_name_stays_a_name() -> None:
    config = replace(CONFIG, setup=replace(SETUP, reader_user="a` IDENTIFIED; --"))
    assert any("`a\\` IDENTIFIED; --`" in statement for statement in user_statements(config))
    with pytest.raises(ConfigError):
        list(user_statements(replace(CONFIG, clickhouse=ClickHouseConfig(database="a; DROP"))))


async def test_the_engine_can_parse_every_statement(runtime: Runtime) -> None:
    # The embedded engine keeps no users; its parser is the server's own.
    clickhouse = await ClickHouse.connect(ClickHouseConfig(url=runtime.clickhouse))
    try:
        for statement in user_statements(CONFIG):
            assert await clickhouse.rows(f"EXPLAIN AST {statement}")
    finally:
        await clickhouse.close()
