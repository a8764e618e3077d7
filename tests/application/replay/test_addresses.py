"""An exchange with one path for everything: what it is asked stands in the body."""

from collections.abc import Mapping
from typing import Any, ClassVar

import aiohttp
import pytest

from alpha_pulse.replay import dialects
from alpha_pulse.replay.dialects.base import Options
from alpha_pulse.replay.dialects.binance import Binance
from alpha_pulse.replay.exchange.faults import FaultPlan, RestFault
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.recorded import RecordedMarket
from alpha_pulse.replay.markets.recording import Recording


class OnePath(Binance):
    routes: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"/info/trades$", "trades"),
        (r"/info/klines$", "klines"),
    )
    weights: ClassVar[tuple[tuple[str, int], ...]] = ((r"/info/trades$", 30),)

    def address(self, path: str, query: Mapping[str, str]) -> str:
        return f"{path}/{query.get('type', '')}"


@pytest.fixture(autouse=True)
def one_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dialects.DIALECTS, "binance", OnePath)


def about(what: str, **named: Any) -> dict[str, Any]:
    return {"type": what, "req": {"symbol": "BTCUSDT", **named}}


async def test_a_body_names_what_is_asked_and_its_parameters(recording: Recording) -> None:
    async with (
        ReplayExchange([RecordedMarket(recording)], at_end=True) as exchange,
        aiohttp.ClientSession() as session,
    ):

        async def ask(**arguments: Any) -> tuple[int, Any]:
            async with session.post(f"{exchange.url}/api.binance.com/info", **arguments) as answer:
                return answer.status, await answer.json()

        status, rows = await ask(json=about("trades", limit=3))
        assert (status, [row["id"] for row in rows]) == (
            200,
            [row.trade_id for row in recording.trades[-3:]],
        )
        status, rows = await ask(json=about("klines", interval="1m", limit=2))
        assert (status, len(rows)) == (200, 2)
        for unknown in ({"json": about("what")}, {"data": b"{"}, {"json": [1]}, {}):
            assert (await ask(**unknown))[0] == 404
        assert exchange.ledger.report()["rest_requests"] == {"trades": 1, "klines": 1}


async def test_faults_and_weights_are_those_of_what_is_asked(recording: Recording) -> None:
    faults = FaultPlan(rest=[RestFault("http500", at_request=0, path=r"/info/trades")])
    options = Options(weight_per_minute_max=61)
    async with (
        ReplayExchange(
            [RecordedMarket(recording)], at_end=True, faults=faults, options=options
        ) as exchange,
        aiohttp.ClientSession() as session,
    ):
        found = []
        for what in ("klines", "trades", "trades", "trades"):
            asked = about(what, interval="1m")
            async with session.post(f"{exchange.url}/api.binance.com/info", json=asked) as answer:
                found.append(answer.status)
        assert found == [200, 500, 200, 429]
