"""Scripted faults: what goes wrong, and after how many trades or REST requests; by seed.

A script is made once and never rolls dice afterwards: the same seed is the same accident.
"""

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from alpha_pulse.contracts.errors import ConfigError
from alpha_pulse.replay.dialects import DIALECTS
from alpha_pulse.replay.markets.market import TradeRow

STREAM_FAULTS = (
    "close",
    "abort",
    "duplicate",
    "swap",
    "drop",
    "garbage",
    "stall",
    "no-pong",
)
# Answers in good form with too little in them: no rows at all, or the first few.
SHORT_FAULTS = ("no-rows", "few-rows")
REST_FAULTS = (
    "http429",
    "http418",
    "http500",
    "empty",
    "truncated",
    "null",
    "delay",
    *SHORT_FAULTS,
)
# Refusals that stay: a ban that only the body dates, and a place that is not served.
FINAL_FAULTS = ("banned", "restricted")

# Market data of all dialects; not the listing of markets, without which no client starts.
TRADE_PATHS = "|".join(dict.fromkeys(dialect.trade_paths for dialect in DIALECTS.values()))
CANDLE_PATHS = "|".join(dict.fromkeys(dialect.candle_paths for dialect in DIALECTS.values()))
DATA_PATHS = f"{TRADE_PATHS}|{CANDLE_PATHS}"
# The start of every websocket handshake's path, so that faults can tell it from REST.
SOCKET_PATHS = "websocket:"


@dataclass(frozen=True, slots=True)
class StreamFault:
    """One accident of the stream.

    at_trade: how many trades have been published before it, over all symbols.
    trades: how many trades it concerns (lost, doubled or unseen).
    garbage: what the bad frame is, one of GARBAGE_KINDS; or `payload`: the bad frame itself.
    """

    kind: str
    at_trade: int
    trades: int = 1
    seconds: float = 0.0
    garbage: str = "truncated"
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class RestFault:
    """One accident of a REST request.

    at_request: how many matching requests have been made before it.
    seconds: the delay, Retry-After, or how long a ban lasts.
    """

    kind: str
    at_request: int
    seconds: float = 1.0
    path: str = DATA_PATHS


GARBAGE_KINDS = (
    "truncated",
    "list",
    "null",
    "html",
    "wrong-type",
    "absurd-price",
    "negative-amount",
    "unknown-symbol",
    "nested",
    "huge",
)
HUGE_BYTES = 300_000


def garbage(kind: str, frame: bytes, row: TradeRow, market_id: str) -> bytes:
    """Return a bad frame, made of a good one: a client must survive it and report it once.

    frame: the frame of the next trade, which is sent unharmed afterwards.
    """
    price, amount = row.price.encode(), row.amount.encode()
    # A dialect's numbers are texts or JSON numbers.
    quoted = b'"%b"' % price if b'"%b"' % price in frame else price
    made = {
        "truncated": frame[: len(frame) * 2 // 3],
        "list": b"[]",
        "null": b"null",
        "html": b"<html><body>502 Bad Gateway</body></html>",
        "wrong-type": frame.replace(quoted, b'{"not":[null]}'),
        "absurd-price": frame.replace(price, b"1e999999999"),
        "negative-amount": frame.replace(amount, b"-" + amount),
        "unknown-symbol": frame.replace(market_id.encode(), b"NOSUCH"),
        "nested": b'{"a":' * 500,
        "huge": b'{"e":"' + b"x" * HUGE_BYTES,
    }
    return made[kind]


@dataclass(slots=True)
class FaultPlan:
    """A script of faults, in order, and what of it has happened."""

    stream: Sequence[StreamFault] = ()
    rest: Sequence[RestFault] = ()
    applied: list[StreamFault | RestFault] = field(default_factory=list)
    _stream_left: deque[StreamFault] = field(init=False)
    _rest_left: list[RestFault] = field(init=False)
    _matches: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for fault in self.stream:
            _known(fault.kind, STREAM_FAULTS)
            _known(fault.garbage, GARBAGE_KINDS)
        for rest_fault in self.rest:
            _known(rest_fault.kind, (*REST_FAULTS, *FINAL_FAULTS))
        self._stream_left = deque(sorted(self.stream, key=lambda fault: fault.at_trade))
        self._rest_left = list(self.rest)

    @property
    def next_at_trade(self) -> int | None:
        """Return before which trade the stream's next fault happens, None when all have."""
        return self._stream_left[0].at_trade if self._stream_left else None

    def add(self, fault: StreamFault | RestFault) -> None:
        """Let a fault happen next: to the next trade, or to the next REST request of its path."""
        if isinstance(fault, StreamFault):
            _known(fault.kind, STREAM_FAULTS)
            _known(fault.garbage, GARBAGE_KINDS)
            self._stream_left.appendleft(replace(fault, at_trade=0))
            return
        _known(fault.kind, (*REST_FAULTS, *FINAL_FAULTS))
        waiting = sum(1 for other in self._rest_left if other.path == fault.path)
        fault = replace(fault, at_request=self._matches.get(fault.path, 0) + waiting)
        self.rest = [*self.rest, fault]
        self._rest_left.append(fault)

    def take_stream(self, trades_published: int) -> StreamFault | None:
        """Return the fault that is due now, once."""
        if not self._stream_left or self._stream_left[0].at_trade > trades_published:
            return None
        fault = self._stream_left.popleft()
        self.applied.append(fault)
        return fault

    def take_rest(self, path: str) -> RestFault | None:
        """Return the fault that this REST request meets, once."""
        for pattern in dict.fromkeys(fault.path for fault in self.rest):
            if re.search(pattern, path):
                number = self._matches.get(pattern, 0)
                self._matches[pattern] = number + 1
                for fault in self._rest_left:
                    if fault.path == pattern and fault.at_request == number:
                        self._rest_left.remove(fault)
                        self.applied.append(fault)
                        return fault
        return None


def shortened(body: Any, kind: str) -> Any:
    """Return an answer whose longest list of rows has lost all of them, or all but a third."""
    if isinstance(body, list):
        return [] if kind == "no-rows" else body[: len(body) // 3]
    if not isinstance(body, dict):
        return body
    rows = {name: _rows_in(value) for name, value in body.items()}
    longest = max(rows, key=lambda name: rows[name], default=None)
    if longest is None or rows[longest] == 0:
        return body
    return {**body, longest: shortened(body[longest], kind)}


def _rows_in(value: Any) -> int:
    if isinstance(value, list):
        return len(value)
    if isinstance(value, dict):
        return max((_rows_in(inner) for inner in value.values()), default=0)
    return 0


def random_rest_plan(
    kinds: Sequence[str], seed: int, share: float, requests: int, path: str = DATA_PATHS
) -> FaultPlan:
    """Return a script in which a share of so many requests meets a fault, any kind by chance."""
    random = Random(f"rest:{seed}")
    return FaultPlan(
        rest=[
            RestFault(random.choice(kinds), at_request=number, seconds=0.1, path=path)
            for number in range(requests)
            if random.random() < share
        ]
    )


def seeded_plan(kinds: Iterable[str], seed: int, trades: int, per_kind: int = 2) -> FaultPlan:
    """Return a script with each kind `per_kind` times, spread over a stream of so many trades.

    REST faults meet the requests with which a client heals, hence the first few.
    Raises: ConfigError for an unknown kind.
    """
    random = Random(f"faults:{seed}")
    stream: list[StreamFault] = []
    rest: list[RestFault] = []
    # Not in the first and last twentieth: a client has a first and a last trade to hold on to.
    low, high = max(1, trades // 20), max(2, trades - trades // 20)
    for kind in kinds:
        _known(kind, STREAM_FAULTS + REST_FAULTS)
        for _ in range(per_kind):
            if kind in STREAM_FAULTS:
                stream.append(
                    StreamFault(
                        kind,
                        at_trade=random.randrange(low, high),
                        trades=random.randrange(1, 31),
                        seconds=round(random.uniform(0.5, 2.0), 2),
                        garbage=random.choice(GARBAGE_KINDS),
                    )
                )
            else:
                rest.append(RestFault(kind, at_request=random.randrange(6), seconds=1.0))
    # Two faults of one request: the second meets the next one.
    taken: set[int] = set()
    for number, fault in enumerate(rest):
        at = fault.at_request
        while at in taken:
            at += 1
        taken.add(at)
        rest[number] = RestFault(fault.kind, at, fault.seconds, fault.path)
    return FaultPlan(stream, rest)


def _known(kind: str, kinds: Sequence[str]) -> None:
    if kind not in kinds:
        raise ConfigError(f"expected a fault of {', '.join(kinds)}, found {kind!r}")
