"""Candle values: a mergeable summary of trades or of smaller candles, in exact numbers.

Numbers are integers of `UNITS` parts (12 fraction digits), products of two of them 24. Prices keep
the exchange's own text. Sums are published as the shortest plain text (`15.07702`, never `15.0770`
or `1E-8`), so that equal values are equal bytes.
"""

from dataclasses import dataclass

from alpha_pulse.contracts.decimals import UNITS, parse_sum, parse_units, units_text
from alpha_pulse.contracts.events import COVERAGE_ORDER, Candle, Source

# Coverage is a rank here: 0 is best (contracts.events.COVERAGE_ORDER).
CONTIGUOUS, EXCHANGE, UNVERIFIED, PARTIAL, GAP = range(len(COVERAGE_ORDER))
FROM_TRADES, FROM_EXCHANGE = 1, 2
_SOURCES: dict[int, Source] = {1: "trades", 2: "exchange", 3: "mixed"}

# Orders trades of one microsecond: the id's number, or (length, text) where ids are no numbers.
Rank = int | tuple[int, str]


@dataclass(slots=True)
class Value:
    """What is known of a window. Merging two is associative and commutative.

    `high` and `low` are the texts of the trades that set them (of equal prices in different
    digits, the shorter). Fields that the source does not know have their `*_known` down.
    `parts` counts the base windows that stand behind it; coverage, source and parts are set when
    the window is judged, not by trades.
    """

    first_time_us: int
    first_rank: Rank
    first_id: str | None
    open: str
    last_time_us: int
    last_rank: Rank
    last_id: str | None
    close: str
    high_units: int
    high: str
    low_units: int
    low: str
    volume_units: int
    quote_units: int  # 24 fraction digits
    buy_units: int
    count: int
    quote_known: bool = True
    sides_known: bool = True
    count_known: bool = True
    empty: bool = False
    coverage: int = CONTIGUOUS
    source: int = FROM_TRADES
    parts: int = 1


def copy_value(value: Value) -> Value:
    """Return a copy; later trades don't change it."""
    return Value(
        value.first_time_us, value.first_rank, value.first_id, value.open,
        value.last_time_us, value.last_rank, value.last_id, value.close,
        value.high_units, value.high, value.low_units, value.low,
        value.volume_units, value.quote_units, value.buy_units, value.count,
        value.quote_known, value.sides_known, value.count_known, value.empty,
        value.coverage, value.source, value.parts,
    )  # fmt: skip


def value_of_trade(
    time_us: int, rank: Rank, trade_id: str, price: str, price_units: int, amount_units: int,
    side: str,
) -> Value:  # fmt: skip
    """Return the value of a window that holds one trade."""
    return Value(
        time_us, rank, trade_id, price, time_us, rank, trade_id, price,
        price_units, price, price_units, price,
        amount_units, price_units * amount_units, amount_units if side == "buy" else 0, 1,
        sides_known=side != "unknown",
    )  # fmt: skip


def add_trade(
    value: Value, time_us: int, rank: Rank, trade_id: str, price: str, price_units: int,
    amount_units: int, side: str,
) -> None:  # fmt: skip
    """Merge one trade into the value, in any order of times and ids."""
    if _is_before(value.last_time_us, value.last_rank, time_us, rank):
        value.last_time_us, value.last_rank = time_us, rank
        value.last_id, value.close = trade_id, price
    if _is_before(time_us, rank, value.first_time_us, value.first_rank):
        value.first_time_us, value.first_rank = time_us, rank
        value.first_id, value.open = trade_id, price
    widen(value, price_units, price)
    value.volume_units += amount_units
    value.quote_units += price_units * amount_units
    value.count += 1
    if side == "buy":
        value.buy_units += amount_units
    elif side == "unknown":
        value.sides_known = False


def widen(value: Value, price_units: int, price: str) -> None:
    """Let the price move high and low."""
    if price_units > value.high_units or (
        price_units == value.high_units and (len(price), price) < (len(value.high), value.high)
    ):
        value.high_units, value.high = price_units, price
    if price_units < value.low_units or (
        price_units == value.low_units and (len(price), price) < (len(value.low), value.low)
    ):
        value.low_units, value.low = price_units, price


def empty_value(open_time_us: int, close_time_us: int, price: str) -> Value:
    """Return the value of a window in which nothing was traded: the previous close, volume 0."""
    units = parse_units(price)
    return Value(
        open_time_us, -1, None, price, close_time_us - 1, -1, None, price,
        units, price, units, price, 0, 0, 0, 0, empty=True,
    )  # fmt: skip


def merge(a: Value, b: Value) -> Value:
    """Return the value of both windows together; coverage is the worse, parts add up.

    An empty window adds its proof and nothing else, unless both are empty.
    """
    return absorb(copy_value(a), b)


def absorb(merged: Value, b: Value) -> Value:
    """Merge b into the first value and return that; b stays as it is."""
    coverage, source = max(merged.coverage, b.coverage), merged.source | b.source
    parts = merged.parts + b.parts
    if not b.empty:
        if merged.empty:
            merged = copy_value(b)
        else:
            _merge_trades(merged, b)
    elif merged.empty:
        _merge_empty(merged, b)
    merged.coverage, merged.source, merged.parts = coverage, source, parts
    return merged


def _merge_trades(merged: Value, b: Value) -> None:
    if _is_before(b.first_time_us, b.first_rank, merged.first_time_us, merged.first_rank):
        merged.first_time_us, merged.first_rank = b.first_time_us, b.first_rank
        merged.first_id, merged.open = b.first_id, b.open
    if _is_before(merged.last_time_us, merged.last_rank, b.last_time_us, b.last_rank):
        merged.last_time_us, merged.last_rank = b.last_time_us, b.last_rank
        merged.last_id, merged.close = b.last_id, b.close
    widen(merged, b.high_units, b.high)
    widen(merged, b.low_units, b.low)
    merged.volume_units += b.volume_units
    merged.quote_units += b.quote_units
    merged.buy_units += b.buy_units
    merged.count += b.count
    merged.quote_known = merged.quote_known and b.quote_known
    merged.sides_known = merged.sides_known and b.sides_known
    merged.count_known = merged.count_known and b.count_known


def _merge_empty(merged: Value, b: Value) -> None:
    # Nothing was traded in between, so the price is the same; the earlier text is kept.
    if b.first_time_us < merged.first_time_us:
        merged.first_time_us = b.first_time_us
        merged.open = merged.close = merged.high = merged.low = b.close
        merged.high_units = merged.low_units = b.high_units
    merged.last_time_us = max(merged.last_time_us, b.last_time_us)


def _is_before(time_us: int, rank: Rank, other_us: int, other_rank: Rank) -> bool:
    if time_us != other_us:
        return time_us < other_us
    return _sortable(rank) < _sortable(other_rank)


def _sortable(rank: Rank) -> tuple[int, int, str]:
    # Windows of trades (numbers or texts) meet windows of the exchange (-1): one order for all.
    return (0, rank, "") if isinstance(rank, int) else (1, rank[0], rank[1])


def value_of_exchange(candle: Candle, close_time_us: int, parts: int) -> Value:
    """Return the value of the exchange's own candle; what it leaves out stays unknown."""
    volume = parse_sum(candle.volume)
    empty = volume == 0 and not candle.trade_count
    return Value(
        candle.open_time_us, -1, candle.first_trade_id, candle.open,
        close_time_us - 1, -1, candle.last_trade_id, candle.close,
        parse_units(candle.high), candle.high, parse_units(candle.low), candle.low,
        volume,
        0 if candle.quote_volume is None else parse_sum(candle.quote_volume) * UNITS,
        0 if candle.buy_volume is None else parse_sum(candle.buy_volume),
        candle.trade_count or 0,
        quote_known=empty or candle.quote_volume is not None,
        sides_known=empty or candle.buy_volume is not None,
        count_known=empty or candle.trade_count is not None,
        empty=empty,
        coverage=EXCHANGE, source=FROM_EXCHANGE, parts=parts,
    )  # fmt: skip


def to_candle(
    value: Value,
    exchange: str,
    symbol: str,
    timeframe: str,
    open_time_us: int,
    revision: int,
    job: str | None = None,
) -> Candle:
    """Return the candle to publish for a judged value."""
    return Candle(
        exchange=exchange,
        symbol=symbol,
        timeframe=timeframe,
        open_time_us=open_time_us,
        open=value.open,
        high=value.high,
        low=value.low,
        close=value.close,
        volume=units_text(value.volume_units),
        quote_volume=quote_text(value.quote_units) if value.quote_known else None,
        buy_volume=units_text(value.buy_units) if value.sides_known else None,
        trade_count=value.count if value.count_known else None,
        first_trade_id=value.first_id,
        last_trade_id=value.last_id,
        revision=revision,
        source=_SOURCES[value.source],
        coverage=COVERAGE_ORDER[value.coverage],
        job=job,
    )


def quote_text(units: int) -> str:
    """Return units of 10^-24 rounded half-even to 12 fraction digits, as plain text."""
    whole, rest = divmod(units, UNITS)
    if rest * 2 > UNITS or (rest * 2 == UNITS and whole % 2):
        whole += 1
    return units_text(whole)
