"""Dashboards and provisioning as files: whole, with fixed names, and metrics that there are."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from alpha_pulse.contracts.config import SetupConfig
from alpha_pulse.contracts.market import TIMEFRAMES
from alpha_pulse.contracts.roles.metrics.metric import COMMON, Metric
from alpha_pulse.contracts.topics import CANDLES
from alpha_pulse.processors.worker.metrics import METRICS as PROCESSOR_METRICS
from alpha_pulse.producers.metrics import METRICS as PRODUCER_METRICS
from alpha_pulse.sinks.metrics import METRICS as SINK_METRICS

ROOT = Path(__file__).parents[3]
GRAFANA = ROOT / "grafana"
BOARDS = {
    file.stem: json.loads(file.read_text()) for file in sorted(GRAFANA.glob("dashboards/*.json"))
}
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (*COMMON, *PRODUCER_METRICS, *PROCESSOR_METRICS, *SINK_METRICS)
}
# Labels that Prometheus puts on every series itself.
SCRAPED = {"instance", "job"}
KEYWORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool"}
WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def provisioned(name: str) -> Any:
    return yaml.safe_load((GRAFANA / "provisioning" / name).read_text())


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = provisioned("alerting/rules.yaml")["groups"][0]["rules"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """The place and the text of each PromQL expression."""
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                if "expr" in target:
                    yield f"{name}: {panel['title']}", target["expr"]
    for rule in rules():
        expr = rule["data"][0]["model"].get("expr")
        if expr:
            yield f"rule: {rule['title']}", expr


def metrics_of(expression: str) -> set[tuple[str, frozenset[str]]]:
    """Return the metrics that an expression reads, and the labels it selects or groups by."""
    labels: set[str] = set()
    for matchers in re.findall(r"\{([^}]*)\}", expression):
        labels |= {WORD.match(part.strip())[0] for part in matchers.split(",")}  # type: ignore[index]
    for group in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", expression):
        labels |= set(WORD.findall(group))
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\"[^\"]*\"|\b(?:by|without)\s*\([^)]*\)", " ", expression)
    names = set()
    for match in WORD.finditer(bare):
        is_call = bare[match.end() :].lstrip().startswith("(")
        if not is_call and match[0] not in KEYWORDS:
            names.add(match[0])
    return {(name, frozenset(labels)) for name in names}


def test_names_are_found_in_every_form_of_expression() -> None:
    quantile = 'histogram_quantile(0.99, sum by (le, table) (rate(a_bucket{b=~"$c"}[$__rate])))'
    assert metrics_of(quantile) == {("a_bucket", frozenset({"le", "table", "b"}))}
    assert metrics_of("time() - max(a_seconds)") == {("a_seconds", frozenset())}
    assert {name for name, _ in metrics_of("a_total / on (x) b_total")} == {
        "a_total",
        "b_total",
        "x",
    }


def test_every_metric_and_label_that_is_asked_for_exists() -> None:
    seen = set()
    for place, expression in expressions():
        found = metrics_of(expression)
        assert found, place
        for name, labels in found:
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            metric = METRICS.get(name) or METRICS.get(base)
            assert metric is not None, f"{place}: {name}"
            assert (metric.kind == "histogram") == (base != name), f"{place}: {name}"
            known = {*metric.labels, *SCRAPED, *(("le",) if metric.kind == "histogram" else ())}
            assert labels <= known, f"{place}: {labels - known}"
            assert (metric.kind == "counter") <= (
                "rate(" in expression or "increase(" in expression
            )
            seen.add(metric.name)
    assert len(seen) > 30


def test_parentheses_and_brackets_of_expressions_are_closed() -> None:
    for place, expression in expressions():
        for left, right in ("()", "{}", "[]"):
            assert expression.count(left) == expression.count(right), place


def test_there_are_four_dashboards_with_fixed_names() -> None:
    assert {name: board["uid"] for name, board in BOARDS.items()} == {
        "exchanges": "alpha-pulse-exchanges",
        "market": "alpha-pulse-market",
        "pipeline": "alpha-pulse-pipeline",
        "quality": "alpha-pulse-quality",
    }
    for board in BOARDS.values():
        assert "id" not in board
        assert "__inputs" not in board


@pytest.mark.parametrize("name", BOARDS)
def test_panels_ask_known_sources_and_do_not_overlap(name: str) -> None:
    board = BOARDS[name]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    sources = {f"${{{n}}}": v["query"] for n, v in variables.items() if v["type"] == "datasource"}
    cells: set[tuple[int, int]] = set()
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        position = panel["gridPos"]
        assert position["x"] + position["w"] <= 24
        taken = set(
            itertools.product(
                range(position["x"], position["x"] + position["w"]),
                range(position["y"], position["y"] + position["h"]),
            )
        )
        assert not taken & cells, panel["title"]
        cells |= taken
        for target in panel["targets"]:
            source = target["datasource"]
            assert sources[source["uid"]] == source["type"], panel["title"]
            assert ("rawSql" in target) == (source["type"] == "grafana-clickhouse-datasource")
            used = set(re.findall(r"\$\{?(?!__)(\w+)", target.get("rawSql") or target["expr"]))
            assert used <= set(variables), panel["title"]


def test_any_timeframe_can_be_chosen() -> None:
    (timeframe,) = (v for v in BOARDS["market"]["templating"]["list"] if v["name"] == "timeframe")
    chosen = {option["text"]: int(option["value"]) for option in timeframe["options"]}
    assert chosen == {
        name: known.duration_us // 1_000_000 for name, known in TIMEFRAMES.items() if name != "1s"
    }
    assert timeframe["query"] == ", ".join(f"{name} : {s}" for name, s in chosen.items())
    sql = BOARDS["market"]["panels"][0]["targets"][0]["rawSql"]
    stored = re.search(r"NOT IN \(([^)]*)\)", sql)
    assert stored is not None
    assert set(re.findall(r"'(\w+)'", stored[1])) == set(CANDLES)


def test_the_candlestick_panel_knows_its_columns() -> None:
    panel = BOARDS["market"]["panels"][0]
    assert panel["type"] == "candlestick"
    assert panel["options"]["mode"] == "candles+volume"
    assert panel["options"]["includeAllFields"] is True
    sql = panel["targets"][0]["rawSql"]
    for column in panel["options"]["fields"].values():
        assert f"AS {column}" in sql
    for override in panel["fieldConfig"]["overrides"]:
        assert f"AS {override['matcher']['options']}" in sql


def test_the_sources_are_the_ones_that_dashboards_and_rules_name() -> None:
    sources = {s["uid"]: s for s in provisioned("datasources/datasources.yaml")["datasources"]}
    assert {uid: source["type"] for uid, source in sources.items()} == {
        "clickhouse": "grafana-clickhouse-datasource",
        "prometheus": "prometheus",
    }
    settings = sources["clickhouse"]["jsonData"]
    assert (settings["port"], settings["protocol"]) == (8123, "http")
    assert settings["username"] == SetupConfig().reader_user
    # No password in the file.
    assert sources["clickhouse"]["secureJsonData"]["password"].startswith("$__file{")
    for board in BOARDS.values():
        for variable in board["templating"]["list"]:
            if variable["type"] == "datasource":
                assert sources[variable["current"]["value"]]["type"] == variable["query"]


def test_the_four_alert_rules_compare_one_query_each() -> None:
    assert [rule["title"] for rule in rules()] == [
        "No data while live",
        "Lag",
        "Gap open",
        "Audit mismatch",
    ]
    text = (GRAFANA / "provisioning/alerting/rules.yaml").read_text()
    # Grafana takes $NAME for its environment in labels, and some versions in annotations too.
    assert "$" not in text
    assert len({rule["uid"] for rule in rules()}) == 4
    for rule in rules():
        query, above = rule["data"]
        assert rule["condition"] == above["refId"] == "above"
        assert above["model"]["expression"] == query["refId"] == query["model"]["refId"]
        assert above["datasourceUid"] == "__expr__"
        assert query["datasourceUid"] in ("clickhouse", "prometheus")
        for label in re.findall(r'\.Labels "(\w+)"', rule["annotations"]["summary"]):
            model = query["model"]
            assert label in (model.get("rawSql") or model["expr"])


def test_the_dashboards_lie_where_compose_puts_them() -> None:
    (provider,) = provisioned("dashboards/dashboards.yaml")["providers"]
    grafana = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].get("grafana", {})
    for volume in grafana.get("volumes", ()):
        if volume.startswith("./grafana/dashboards:"):
            assert volume.split(":")[1] == provider["options"]["path"]
