"""A symbol's feed as the settings want it, going on after its last trade in the log."""

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.feed.continuity import ConsecutiveIds, SeenIds
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed, Tracker


def new_feed(
    config: ProducerConfig, exchange: str, symbol: str, last: tuple[str, int] | None
) -> SymbolFeed:
    """Return the feed. last: id and time in µs of the last trade in the log; None: there is none.

    With one, the feed is not caught up until REST was asked what came since.
    """
    feed = SymbolFeed(
        exchange,
        symbol,
        _tracker(config, exchange, last),
        grace_us=int(config.heartbeat_grace_s * 1e6),
        silence_us_max=int(config.silence_s_max * 1e6),
        waiting_max=config.hold_back_trades_max,
    )
    feed.caught_up = last is None
    return feed


def _tracker(config: ProducerConfig, exchange: str, last: tuple[str, int] | None) -> Tracker:
    last_id, last_time_us = last or (None, 0)
    if not exchange_of(exchange).ids_are_consecutive:
        return SeenIds(last_id=last_id, last_time_us=last_time_us)
    return ConsecutiveIds(
        last_id=None if last_id is None else int(last_id),
        last_time_us=last_time_us,
        hold_back_trades_max=config.hold_back_trades_max,
        hold_back_us_max=int(config.hold_back_s_max * 1e6),
    )
