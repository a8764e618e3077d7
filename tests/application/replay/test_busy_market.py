"""A market in which far more happens at once than one batch takes."""

from collections.abc import Sequence

from alpha_pulse.replay.exchange.conductor import BATCH_TRADES_MAX
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.market import TradeRow
from alpha_pulse.replay.markets.synthetic import SyntheticMarket
from tests.application.replay.conftest import BEGIN_US, MINUTE_US, until


class CountedMarket(SyntheticMarket):
    """Counts the trades that it was asked for."""

    looked_at = 0

    def rows(self, first: int, end: int) -> Sequence[TradeRow]:
        """Return the trades at positions [first, end)."""
        found = super().rows(first, end)
        self.looked_at += len(found)
        return found


async def test_an_exchange_that_is_behind_looks_at_no_trade_again_and_again() -> None:
    markets = [
        CountedMarket(
            symbol, 3, begin_us=BEGIN_US, end_us=BEGIN_US + 2 * MINUTE_US,
            trades_per_minute=20_000, quiet_minutes=0,
        )
        for symbol in ("BTC/USDT", "ETH/USDT")
    ]  # fmt: skip
    # One tick is a minute: ten batches of each symbol wait at once.
    async with ReplayExchange(markets, wait_for=[], candle_interval_us=MINUTE_US) as exchange:
        await until(lambda: exchange.conductor.finished)
        for feed, market in zip(exchange.feeds, markets, strict=True):
            assert feed.published == market.position_at(BEGIN_US + 2 * MINUTE_US)
            assert feed.published > 4 * BATCH_TRADES_MAX
            # Once to print it and once for its minute's candle.
            assert market.looked_at < 2.5 * feed.published
