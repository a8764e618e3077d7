"""Symbols, exchanges, timeframes and namespaces from outside: never SQL, never a topic's name."""

import ast
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.contracts.codec import decode_ingest
from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.errors import ConfigError, ValidationError
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.market import (
    TIMEFRAMES,
    check_exchange,
    check_symbol,
    get_timeframe,
    message_key,
)
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.topics import CANDLES, TOPICS
from alpha_pulse.sinks.clickhouse.statements import placeholders

ROOT = Path(__file__).parents[2]
HOSTILE = [
    "BTC/USDT'; DROP TABLE trades_log; --",
    "BTC/USDT' OR 1=1 --",
    "BTC/USDT`",
    'BTC/USDT"',
    "BTC/USDT\\",
    "BTC/USDT\n",
    "BTC/USDT\x00",
    "BTC/USDT {x:String}",
    "BTC/USDT%27",
    "BTC/\u202eTDSU",
    "\uff22\uff34\uff23/USDT",
    "../../etc/passwd",
    "BTC/../USDT",
    "$(id)/USDT;",
    "BTC/USDT:USDT:USDT",
    "a" * 10_000 + "/USDT",
    "",
    " ",
]
# Kafka's own rule for names, and what stands in SQL without being quoted.
TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
names = st.one_of(
    st.sampled_from(HOSTILE), st.text(), st.text("abc/:.'\";-_ `\n\\{}%0", max_size=20)
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_no_symbol_exchange_or_timeframe(name: str) -> None:
    for check in (check_symbol, check_exchange, get_timeframe):
        with pytest.raises(ValidationError) as raised:
            check(name)
        assert len(str(raised.value)) < 400


@given(names)
def test_whatever_passes_can_not_end_a_text_or_begin_a_statement(name: str) -> None:
    for check in (check_symbol, check_exchange):
        try:
            passed = check(name)
        except ValidationError:
            continue
        assert re.fullmatch(r"[A-Za-z0-9._$/:-]+", passed)
        assert message_key("binance", passed).isascii()


@given(names)
def test_a_hostile_field_makes_the_whole_event_a_dead_letter(name: str) -> None:
    for example, fields in (
        (EXAMPLES[Trade]["binance"], ("exchange", "symbol", "trade_id", "job", "price")),
        (EXAMPLES[Candle]["contiguous"], ("exchange", "symbol", "timeframe", "close")),
    ):
        for field in fields:
            values = {**msgspec.to_builtins(example), field: name}
            try:
                event = decode_ingest(msgspec.json.encode(values))
            except ValidationError:
                continue
            assert re.fullmatch(r"[!-~]+", getattr(event, field))
            if field == "timeframe":
                assert name in TIMEFRAMES


@given(names)
def test_a_namespace_makes_names_that_kafka_and_sql_take_or_is_refused(name: str) -> None:
    try:
        config = load_config(None, {"ALPHA_PULSE_NAMESPACE": name})
        database = placeholders(config)["database"]
    except ConfigError:
        return
    assert IDENTIFIER.fullmatch(database)
    for topic in TOPICS:
        assert TOPIC_NAME.fullmatch(topic.full_name(config.namespace))


def test_the_name_of_a_topic_comes_from_the_table_and_from_nowhere_else() -> None:
    assert set(CANDLES) <= set(TIMEFRAMES)
    for name in HOSTILE:
        assert name not in CANDLES
    made = {topic.name for topic in TOPICS}
    for timeframe, topic in CANDLES.items():
        assert topic.name == f"market.candles.{timeframe}.v1"
        assert topic.name in made


# What stands in the text of a statement: names of ours, checked by `placeholders`, and fragments
# that are constants. Values are parameters. Something new here needs a second look.
TRUSTED = {
    "database", "self._database", "values['database']", "values['on_cluster']", "on_cluster",
    "table", "table.name", "view", "condition", "' AND '.join(conditions)",
    "CANDLES.columns", "GAPS.columns", "TRADES.columns",  # of the contracts' fields
    "_CANDLES", "_COLUMNS", "_MARKET", "_OF_JOB", "_OHLC", "_TRADES",
    "BASE_TIMEFRAME", "GAPS_MAX", "MARKETS_MAX", "RATE_WINDOW_S",
    "tag",  # a counter's, of the embedded engine
    "name", "identified", "right", "settings", "user",  # users and their rights, quoted
    "', '.join(key)", "', '.join(shown)", "newest", "view_name(table)", "parts",  # of a kind
}  # fmt: skip
STATEMENT = re.compile(r"\b(SELECT|INSERT INTO|ALTER|CREATE|DROP|GRANT|DELETE FROM|WHERE)\b")


def test_no_statement_is_put_together_from_values() -> None:
    found: dict[str, set[str]] = {}
    for part in ("contracts", "producers", "processors", "sinks", "alpha_pulse"):
        for path in sorted((ROOT / part).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    texts = [v.value for v in node.values if isinstance(v, ast.Constant)]
                    if STATEMENT.search("".join(map(str, texts))):
                        found.setdefault(path.relative_to(ROOT).as_posix(), set()).update(
                            ast.unparse(v.value)
                            for v in node.values
                            if isinstance(v, ast.FormattedValue)
                        )
    new = {path: used - TRUSTED for path, used in found.items()}
    new = {path: extra for path, extra in new.items() if extra}
    assert new == {}, "send values as {name:String} parameters"


def test_the_default_settings_are_themselves_harmless() -> None:
    assert IDENTIFIER.fullmatch(placeholders(Config())["database"])
