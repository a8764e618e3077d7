"""The verdict of a soak: the oracle over all symbols, and every rule that must hold."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from alpha_pulse.cli.pipeline.stored import connect, count_gaps, count_trades
from alpha_pulse.cli.replay.accidents import Accident
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.recording import GRACE_US
from alpha_pulse.replay.verdict import Comparison
from tests.faults.soak.found import (
    count_by,
    newest_minutes,
    read_candles_of,
    read_gaps,
    read_kafka,
    read_trades_of,
)
from tests.faults.soak.oracle import Published, TradeFigures, judge_candles, judge_trades
from tests.faults.soak.pipeline import Pipeline
from tests.faults.soak.plan import ROLES

TERMINATE_S_MAX = 10.0
# From the last close of a storm to every channel subscribed, once each.
RECONNECT_S_MAX = 5.0
# A shorter run is no sign of anything: caches fill, and what was held back is caught up with.
FLAT_AFTER_S = 540.0


def ledger_of(exchange: ReplayExchange) -> dict[str, Published]:
    """Return what was printed by now of every symbol that is watched."""
    return {
        feed.symbol: Published(feed.market, feed.begin, feed.published)
        for feed in exchange.feeds
        if feed.watched and feed.published > feed.begin
    }


async def judge(
    pipeline: Pipeline,
    ledger: dict[str, Published],
    plan: Sequence[Accident],
    summary: dict[str, Any],
) -> None:
    """Compare ledger, Kafka and ClickHouse; note figures and failures in the summary."""
    config = pipeline.direct()
    records = await read_kafka(config)
    client = connect(config.clickhouse)
    database = config.database
    gaps = read_gaps(client, database)
    in_kafka, in_clickhouse, candles = TradeFigures(), TradeFigures(), Comparison()
    coverage = Counter[str]()
    newest = newest_minutes(client, database)
    for symbol, published in ledger.items():
        trades = read_trades_of(client, database, symbol)
        in_kafka.add(judge_trades(published, records[symbol], gaps.get(symbol, ())))
        in_clickhouse.add(judge_trades(published, trades, gaps.get(symbol, ())))
        stored = read_candles_of(client, database, symbol)
        coverage.update(candle.coverage for candle in stored if candle.timeframe == "1m")
        end_us = newest.get(symbol, 0) + MINUTE_US + GRACE_US
        compared = judge_candles(published, trades, stored, end_us)
        candles.compared += compared.compared
        candles.equal += compared.equal
        candles.different += compared.different
    counts = count_trades(client, database)
    summary.update(
        kafka=vars(in_kafka),
        clickhouse={**vars(in_clickhouse), "duplicated": counts.duplicated},
        gaps=count_gaps(client, database),
        candles={**candles.as_json(), "coverage_1m": dict(coverage)},
        audits=count_by(client, database, "audits", "result"),
        dead_letters=count_by(client, database, "dead_letters_log", "reason"),
        endings=endings(said := pipeline.up.log.read_text(errors="replace")),
        alarms=alarms(said),
    )
    client.close()
    summary["failures"] = failures(summary, plan)


def endings(log: str) -> dict[str, dict[str, int]]:
    """Return how often each role ended with each exit code, as the supervisor said."""
    found: dict[str, Counter[str]] = {}
    for name, code in re.findall(r"^(\S+) ended with exit code (\d+)", log, re.MULTILINE):
        found.setdefault(name, Counter())[code] += 1
    return {name: dict(codes) for name, codes in sorted(found.items())}


def alarms(log: str) -> dict[str, int]:
    """Return what the roles warned of, as the supervisor passed it on, and how often at least."""
    return dict(Counter(re.findall(r"^\S+: ([a-z_]+\.[a-z_]+) ", log, re.MULTILINE)))


def failures(summary: dict[str, Any], plan: Sequence[Accident]) -> list[str]:
    """Return what does not hold, one line each."""
    kafka, clickhouse, candles = summary["kafka"], summary["clickhouse"], summary["candles"]
    holds = {
        "expected trades, found none published": kafka["published"] > 0,
        f"expected every accident, found {len(summary['accidents'])} of {len(plan)}": (
            len(summary["accidents"]) == len(plan)
        ),
        f"expected unseen to fall to 0, found {summary['unseen']}": summary["unseen"] == 0,
        f"expected no trade lost in Kafka, found {kafka['lost']}": kafka["lost"] == 0,
        f"expected no trade lost, found {clickhouse['lost']}": clickhouse["lost"] == 0,
        f"expected no row doubled, found {clickhouse['duplicated']}": (
            clickhouse["duplicated"] == 0
        ),
        f"expected each identity once in the view, found {clickhouse['republished']} more": (
            clickhouse["republished"] == 0
        ),
        f"expected no trade altered, found {kafka['altered']} in Kafka": kafka["altered"] == 0,
        f"expected no trade altered, found {clickhouse['altered']}": clickhouse["altered"] == 0,
        f"expected equal candles, found {candles['equal']} of {candles['compared']}": (
            candles["equal"] == candles["compared"] > 0
        ),
        f"expected exit code 0, found {summary['exit_code']}": summary["exit_code"] == 0,
    }
    slow = [seconds for seconds in summary["terminated_s"] if seconds > TERMINATE_S_MAX]
    holds[f"expected roles to end within {TERMINATE_S_MAX:.0f} s, found {slow}"] = not slow
    back_s = summary["reconnected_s"] or 0.0
    holds[f"expected streams back in {RECONNECT_S_MAX:.0f} s, found {back_s}"] = (
        back_s <= RECONNECT_S_MAX
    )
    if not any(accident.kind == "garbage" for accident in plan):
        holds[f"expected no dead letter, found {summary['dead_letters']}"] = not summary[
            "dead_letters"
        ]
    if not any(accident.role in ROLES for accident in plan):
        holds[f"expected every role to stay up, found {summary['endings']}"] = not summary[
            "endings"
        ]
    for role in ROLES:
        planned = sum((each.kind, each.role) == ("kill", role) for each in plan)
        killed = summary["endings"].get(role, {}).get("137", 0)
        holds[f"expected {planned} kills of {role}, found {killed} that met it"] = killed >= planned
    if any(accident.kind == "full" for accident in plan):
        told = {"commit.failed", "publish.retried"} & set(summary["alarms"])
        holds[f"expected the full disk to be told, found {summary['alarms']}"] = bool(told)
    if all(accident.kind == "terminate" for accident in plan):
        codes = {code for ends in summary["endings"].values() for code in ends}
        holds[f"expected exit code 0 of every role, found {codes}"] = codes <= {"0"}
        holds[f"expected nothing published twice, found {kafka['republished']}"] = (
            kafka["republished"] == 0
        )
    found = [line for line, true in holds.items() if not true]
    for name, quantities in summary["flat"].items():
        for quantity, verdict in quantities.items():
            if not verdict["flat"] and summary["seconds"] >= FLAT_AFTER_S:
                found.append(f"expected {quantity} of {name} flat, found {verdict['maxima']}")
    return found
