import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.replay.dialects.base import Options
from alpha_pulse.replay.exchange.limits import MessageLimit, WeightLimit
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.recorded import RecordedMarket
from alpha_pulse.replay.markets.recording import Recording
from tests.patience import PATIENCE_S


def test_weight_above_the_limit_is_refused_until_the_minute_ends() -> None:
    limit = WeightLimit(50, [(r"klines$", 2), (r"rades$", 25)])
    assert [limit.ask("api/v3/trades", 10.0).status for _ in range(3)] == [200, 200, 429]
    refused = limit.ask("api/v3/klines", 15.0)
    assert (refused.status, refused.retry_after_s) == (429, 45)
    assert limit.ask("api/v3/trades", 60.0).status == 200


def test_who_goes_on_after_429_is_banned_for_a_while() -> None:
    limit = WeightLimit(1, [])
    statuses = [limit.ask("x", 30.0).status for _ in range(6)]
    assert statuses == [200, 429, 429, 429, 418, 418]
    assert limit.ask("x", 61.0).status == 418
    assert limit.ask("x", 151.0).status == 200


@given(times_s=st.lists(st.floats(0, 10), min_size=1, max_size=60), most=st.integers(1, 8))
def test_no_more_messages_a_second_than_allowed(times_s: list[float], most: int) -> None:
    limit = MessageLimit(most)
    allowed = [now_s for now_s in sorted(times_s) if limit.allows(now_s)]
    for first, after in zip(allowed, allowed[most:], strict=False):
        assert after - first >= 1.0


async def test_a_server_with_limits_answers_429_with_retry_after(recording: Recording) -> None:
    options = Options(weight_per_minute_max=60, messages_per_s_max=3)
    async with (
        ReplayExchange([RecordedMarket(recording)], options=options) as exchange,
        aiohttp.ClientSession() as session,
    ):
        url = f"{exchange.url}/api.binance.com/api/v3/trades?symbol=BTCUSDT"
        for expected in (200, 200, 429):
            async with session.get(url) as response:
                assert response.status == expected
                if expected == 429:
                    assert int(response.headers["Retry-After"]) >= 1
        assert exchange.ledger.report()["rest_refused"] == {"429": 1}
        ws = await session.ws_connect(f"{exchange.url}/stream.binance.com:9443/ws/0")
        for _ in range(4):
            await ws.send_str("{}")
        kinds = [(await ws.receive(timeout=PATIENCE_S)).type for _ in range(4)]
        assert kinds[:3] == [aiohttp.WSMsgType.TEXT] * 3
        assert kinds[3] == aiohttp.WSMsgType.CLOSE
        assert ws.close_code == 1008


@pytest.mark.parametrize("path", ["api/v3/exchangeInfo", "api/v3/time"])
async def test_without_limits_nothing_is_refused(recording: Recording, path: str) -> None:
    async with (
        ReplayExchange([RecordedMarket(recording)]) as exchange,
        aiohttp.ClientSession() as session,
    ):
        for _ in range(20):
            async with session.get(f"{exchange.url}/api.binance.com/{path}") as response:
                assert response.status == 200
