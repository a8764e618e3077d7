"""Our closed candles held against the exchange's own, window by window. Pure.

A `Ledger` keeps the newest windows of one symbol with what each side said of them. An audit is
published when both sides are known, again when either is revised, and once when a side has not
come although the symbol's candles went on. Time is the candles' own, so a replay gives the same.
"""

from decimal import Decimal

import msgspec
from msgspec import Struct

from alpha_pulse.contracts.events import Audit, Candle, FieldDifference
from alpha_pulse.contracts.kinds import CANDLE
from alpha_pulse.contracts.market import MINUTE_US

WINDOWS_MAX = 12
MISSING_AFTER_US = 5 * MINUTE_US
_DECIMALS = CANDLE.decimal_fields


class Side(Struct, array_like=True):
    """What one side said of a window; null: not said."""

    revision: int
    coverage: str
    trade_count: int | None
    values: list[str | None]

    @classmethod
    def of(cls, candle: Candle) -> "Side":
        """Return what a candle says."""
        values = [getattr(candle, name) for name in _DECIMALS]
        return cls(candle.revision, candle.coverage, candle.trade_count, values)


class Entry(Struct, array_like=True):
    """One window: both sides, as far as they are known."""

    ours: Side | None = None
    exchange: Side | None = None
    is_reported: bool = False


class Ledger(Struct, array_like=True):
    """The newest windows of one symbol, by open time; and whether each side is known at all."""

    entries: dict[int, Entry] = {}
    has_ours: bool = False
    has_exchange: bool = False

    def add(self, candle: Candle, is_exchange: bool) -> list[Audit]:
        """Take in a closed candle; return the audits that it causes.

        Our candles that stand in the exchange's own values have nothing to be held against.
        """
        if not is_exchange and candle.source == "exchange":
            return []
        open_us = candle.open_time_us
        newest_us = max(self.entries, default=open_us)
        if open_us < newest_us and len(self.entries) >= WINDOWS_MAX and open_us < min(self.entries):
            return []  # too old: what it is compared with was let go
        entry = self.entries.setdefault(open_us, Entry())
        side = Side.of(candle)
        before = entry.exchange if is_exchange else entry.ours
        if before is not None and before.revision >= side.revision:
            return []
        if is_exchange:
            entry.exchange, self.has_exchange = side, True
        else:
            entry.ours, self.has_ours = side, True
        audits = []
        if entry.ours is not None and entry.exchange is not None:
            audits.append(_compare(candle, open_us, entry.ours, entry.exchange))
        audits += self._missing(candle, max(newest_us, open_us))
        while len(self.entries) > WINDOWS_MAX:
            del self.entries[min(self.entries)]
        return audits

    def _missing(self, candle: Candle, newest_us: int) -> list[Audit]:
        if not (self.has_ours and self.has_exchange):
            return []  # this symbol has only one side: nothing is missing
        audits = []
        for open_us in sorted(self.entries):
            entry = self.entries[open_us]
            is_whole = entry.ours is not None and entry.exchange is not None
            if entry.is_reported or is_whole or open_us + MISSING_AFTER_US > newest_us:
                continue
            entry.is_reported = True
            known = entry.ours or entry.exchange
            assert known is not None
            audits.append(
                Audit(
                    exchange=candle.exchange,
                    symbol=candle.symbol,
                    timeframe=candle.timeframe,
                    open_time_us=open_us,
                    result="missing_exchange" if entry.exchange is None else "missing_ours",
                    coverage=None if entry.ours is None else entry.ours.coverage,  # type: ignore[arg-type]
                    differences=[],
                    candle_revision=None if entry.ours is None else entry.ours.revision,
                    exchange_revision=None if entry.exchange is None else entry.exchange.revision,
                    # Below any audit that knows both sides.
                    revision=known.revision - 1,
                )
            )
        return audits


def _compare(candle: Candle, open_us: int, ours: Side, exchange: Side) -> Audit:
    differences = [
        FieldDifference(field=name, ours=mine, exchange=theirs)
        for name, mine, theirs in zip(_DECIMALS, ours.values, exchange.values, strict=True)
        # What a side leaves out is not a difference.
        if mine is not None and theirs is not None and Decimal(mine) != Decimal(theirs)
    ]
    counts = (ours.trade_count, exchange.trade_count)
    if None not in counts and counts[0] != counts[1]:
        differences.append(
            FieldDifference(field="trade_count", ours=str(counts[0]), exchange=str(counts[1]))
        )
    return Audit(
        exchange=candle.exchange,
        symbol=candle.symbol,
        timeframe=candle.timeframe,
        open_time_us=open_us,
        result="different" if differences else "equal",
        coverage=ours.coverage,  # type: ignore[arg-type]
        differences=differences,
        candle_revision=ours.revision,
        exchange_revision=exchange.revision,
        revision=max(ours.revision, exchange.revision),
    )


def encode_ledger(ledger: Ledger) -> str:
    """Return the ledger as text, as a Faust table keeps it."""
    return msgspec.json.encode(ledger).decode()


def decode_ledger(text: str) -> Ledger:
    """Return the ledger of a text that `encode_ledger` made; an empty text is an empty one."""
    return msgspec.json.decode(text, type=Ledger) if text else Ledger()
