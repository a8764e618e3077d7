"""Every query of the dashboards and alert rules, on the real engine, as the reader.

Variables and macros are written out as Grafana and the ClickHouse plugin (4.20) do it: first the
variables, in the browser, then the macros, in the plugin.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
import yaml
from clickhouse_connect.driver.client import Client

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.market import TIMEFRAMES

GRAFANA = Path(__file__).parents[2] / "grafana"
BOARDS = {file.stem: json.loads(file.read_text()) for file in GRAFANA.glob("dashboards/*.json")}
RULES = yaml.safe_load((GRAFANA / "provisioning/alerting/rules.yaml").read_text())
INTERVAL_S = 60
MACRO = re.compile(r"\$__(\w+)")
VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(?!__)(\w+)")


def expand_variables(text: str, values: dict[str, Any]) -> str:
    """Write the variables out as Grafana does. A value is one, several, or (text, value)."""

    def written(match: re.Match[str]) -> str:
        name, style = match[1] or match[3], match[2] or ""
        value = values[name]
        shown, kept = value if isinstance(value, tuple) else (value, value)
        if style == "text":
            return str(shown)
        several = kept if isinstance(kept, list) else [kept]
        if style == "singlequote":
            return ",".join("'" + str(one).replace("'", "\\'") + "'" for one in several)
        assert style == "", f"unknown style {style}"
        return str(kept) if not isinstance(kept, list) else "{" + ",".join(several) + "}"

    return VARIABLE.sub(written, text)


def expand_macros(sql: str, start_s: float, end_s: float) -> str:
    """Write the macros out as the plugin does (pkg/macros/macros.go)."""
    seconds = [f"toDateTime({int(edge)})" for edge in (start_s, end_s)]
    millis = [f"fromUnixTimestamp64Milli({int(edge * 1000)})" for edge in (start_s, end_s)]
    macros: dict[str, Callable[[str], str]] = {
        "fromTime": lambda _: seconds[0],
        "toTime": lambda _: seconds[1],
        "fromTime_ms": lambda _: millis[0],
        "toTime_ms": lambda _: millis[1],
        "timeFilter": lambda c: f"{c} >= {seconds[0]} AND {c} <= {seconds[1]}",
        "timeFilter_ms": lambda c: f"{c} >= {millis[0]} AND {c} <= {millis[1]}",
        "timeInterval": lambda c: (
            f"toStartOfInterval(toDateTime({c}), INTERVAL {INTERVAL_S} second)"
        ),
        "interval_s": lambda _: str(INTERVAL_S),
    }
    while match := MACRO.search(sql):
        end, argument = match.end(), ""
        if sql[end : end + 1] == "(":
            depth, close = 1, end
            while depth:
                close += 1
                depth += {"(": 1, ")": -1}.get(sql[close], 0)
            argument, end = sql[end + 1 : close], close + 1
        sql = sql[: match.start()] + macros[match[1]](argument) + sql[end:]
    return sql


def targets() -> Iterator[tuple[str, str]]:
    """The title and the text of each query to ClickHouse: panels, variables, alert rules."""
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                if "rawSql" in target:
                    yield f"{name}: {panel['title']}", target["rawSql"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query" and isinstance(variable["query"], str):
                yield f"{name}: variable {variable['name']}", variable["query"]
    for rule in RULES["groups"][0]["rules"]:
        sql = rule["data"][0]["model"].get("rawSql")
        if sql:
            yield f"rule: {rule['title']}", sql


@pytest.fixture(scope="module")
def client(filled: Config) -> Iterator[Client]:
    client = clickhouse_connect.get_client(
        dsn=filled.clickhouse.url,
        username=filled.page.clickhouse_user,
        password=filled.page.clickhouse_password,
        database=filled.database,
    )
    yield client
    client.close()


def rows(
    client: Client, sql: str, timeframe: str = "1m", many: bool = False
) -> list[dict[str, Any]]:
    seconds = str(TIMEFRAMES[timeframe].duration_us // 1_000_000)
    values = {
        "exchange": ["binance", "kra'ken"] if many else "binance",
        "symbol": ["BTC/USDT", "ETH/USDT"] if many else "BTC/USDT",
        "timeframe": (timeframe, seconds),
    }
    now_s = time.time()
    # Grafana writes several values only where a variable takes several.
    text = expand_macros(expand_variables(sql, values), now_s - 8 * 3600, now_s)
    return list(client.query(text).named_results())


def test_every_query_runs_and_finds_what_there_is(client: Client) -> None:
    found = {title: rows(client, sql, many="IN (${" in sql) for title, sql in targets()}
    assert len(found) > 25
    nothing = {title for title, result in found.items() if not result}
    assert nothing == set()


def panel_sql(board: str, title: str) -> str:
    for panel in BOARDS[board]["panels"]:
        if panel["title"] == title:
            return str(panel["targets"][0]["rawSql"])
    raise AssertionError(title)


@pytest.mark.parametrize("timeframe", ["1m", "3m", "5m", "6h"])
def test_the_market_is_one_wide_frame_with_a_dot_for_each_doubt(
    client: Client, timeframe: str
) -> None:
    candles = rows(client, BOARDS["market"]["panels"][0]["targets"][0]["rawSql"], timeframe)
    assert list(candles[0]) == [
        *("time", "open", "high", "low", "close", "volume"),
        *("exchange", "unverified", "partial", "gap"),
    ]
    times = [candle["time"] for candle in candles]
    assert times == sorted(set(times))
    for candle in candles:
        prices = {"open": 10.0, "high": 30.0, "low": 5.0, "close": 20.0}
        assert {name: candle[name] for name in prices} == prices
    dots = {
        name: [candle[name] for candle in candles if candle[name] is not None]
        for name in ("exchange", "unverified", "partial", "gap")
    }
    if timeframe == "1m":
        assert len(candles) == 60
        assert dots == {name: [30.0] for name in dots}
    if timeframe in ("3m", "6h"):
        # A window is as good as its worst minute.
        assert dots["gap"] == [30.0]
    if timeframe == "5m":
        assert dots == {name: [] for name in dots}


def test_a_hostile_variable_stays_a_text(client: Client) -> None:
    hostile = {"exchange": "x' OR 1=1 --", "symbol": "BTC/USDT", "timeframe": ("1m", "60")}
    sql = expand_variables(panel_sql("market", "Coverage"), hostile)
    assert client.query(expand_macros(sql, 0, time.time())).result_rows == []


def test_the_alert_rules_see_what_is_wrong(client: Client) -> None:
    found = {
        title.removeprefix("rule: "): rows(client, sql)
        for title, sql in targets()
        if title.startswith("rule: ")
    }
    market = {"exchange": "binance", "symbol": "BTC/USDT"}
    assert found["Gap open"] == [{**market, "gaps": 1}]
    assert found["Audit mismatch"] == [{**market, "candles": 1}]
    (live,) = found["No data while live"]
    assert live["symbol"] == "BTC/USDT"
    # The last closed minute of the fixture ended when it was made.
    assert 0 <= live["age_s"] < 3600
