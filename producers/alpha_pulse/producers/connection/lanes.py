"""Lanes: the connections over which the symbols of one exchange are spread.

ccxt keeps one connection per URL. Lane 0 is the URL itself, lane n the URL with `#n`: a fragment
is never sent, so that the exchange sees one address, and ccxt several connections. Which lane a
call of ccxt concerns is a context variable, since ccxt's methods make their URLs themselves.
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from alpha_pulse.producers.connection.pace import requests_within
from alpha_pulse.producers.exchanges.adapter import Exchange
from alpha_pulse.producers.exchanges.limits import Rate

# Of one symbol's trades and candles in a subscribe, quotes and commas included: names of markets
# have 26 characters at most.
TOPIC_CHARS_MAX = 80


@dataclass(eq=False, slots=True)
class Asking:
    """A subscription on its way.

    lane: over which connection it goes. sent: called when the exchange has been asked.
    is_waiting: its message is still to be sent.
    """

    lane: int = 0
    sent: Callable[[], None] = lambda: None
    is_waiting: bool = False


ASKING: ContextVar[Asking | None] = ContextVar("ASKING", default=None)


def lane_url(url: str) -> str:
    """Return the URL under which ccxt keeps the connection of the lane that we are in.

    Args:
        url: as ccxt makes it, or as this returned it.
    """
    asking = ASKING.get()
    return f"{url}#{asking.lane}" if asking and asking.lane and "#" not in url else url


class Lanes:
    """How many symbols each lane has. symbols_max: of one lane; None: no limit."""

    def __init__(self, symbols_max: int | None) -> None:
        self._symbols_max = symbols_max
        self._counts: list[int] = []

    def assign(self, count: int) -> int:
        """Return the first lane that has room for so many symbols, which then has them."""
        most = self._symbols_max
        for lane, taken in enumerate(self._counts):
            if most is None or taken + count <= most:
                self._counts[lane] += count
                return lane
        self._counts.append(count)
        return len(self._counts) - 1

    def release(self, lane: int) -> None:
        """Note that a symbol left a lane."""
        self._counts[lane] -= 1


def symbols_per_lane(exchange: Exchange, streams: int) -> int | None:
    """Return how many symbols go over one connection; None: any number.

    Args:
        exchange: whose limits hold.
        streams: of one symbol.
    """
    limits = exchange.limits
    most = []
    if limits.streams:
        most.append(limits.streams // streams)
    if limits.topic_chars:
        most.append(limits.topic_chars // TOPIC_CHARS_MAX)
    if limits.requests:
        # Half: later changes of the symbols are requests too.
        most.append(limits.requests.most // 2 // streams * exchange.symbols_per_subscribe)
    if not most:
        return None
    size = exchange.symbols_per_subscribe
    # Whole messages; where not even one has room, fewer symbols go into it.
    return max(1, min(most) // size * size or min(most))


def start_s(exchange: Exchange, symbols: int, streams: int) -> tuple[int, float]:
    """Return how long an exchange's limits make the start of symbols take.

    Args:
        exchange: whose limits hold.
        symbols: how many there are.
        streams: of one symbol.

    Returns:
        The number of connections, and the seconds until the last subscribe is sent, without the
        network's time.
    """
    symbols_max = symbols_per_lane(exchange, streams) or symbols
    lanes = max(1, -(-symbols // max(1, symbols_max)))
    size = min(exchange.symbols_per_subscribe, max(1, symbols_max))
    messages = -(-min(symbols, symbols_max) // size) * streams
    dials = exchange.limits.dials.half()
    dialing_s = max(0, lanes - dials.most) * dials.window_s / dials.most
    asking_s = max(
        max(0, messages - 1) // most * window_s
        for most, window_s in requests_within(exchange.limits) or [Rate(messages, 0.0)]
    )
    return lanes, dialing_s + asking_s
