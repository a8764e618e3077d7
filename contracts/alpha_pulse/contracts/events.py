"""The events: everything that travels, as frozen Structs told apart by the field `event`.

Schemas and column comments are generated from these classes; where each one travels and is stored
is in `kinds`. A reader ignores fields and kinds of event that it does not know; a field is never
removed, renamed or narrowed in a topic.

Prices and amounts are decimal text with the exchange's own digits. Times are integer microseconds,
UTC. A nullable field is always present; only `job` (of an event that is no history) and
`ids_are_consecutive` are left out at their default.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from alpha_pulse.contracts.decimals import DECIMAL_PATTERN, SUM_PATTERN
from alpha_pulse.contracts.market import (
    EXCHANGE_PATTERN,
    SYMBOL_PATTERN,
    TIME_US_MAX,
    TIME_US_MIN,
    TIMEFRAMES,
    TRADE_ID_PATTERN,
)

Exchange = Annotated[
    str, Meta(pattern=EXCHANGE_PATTERN, description="ccxt's id; a testnet ends in -testnet")
]
Symbol = Annotated[
    str, Meta(pattern=SYMBOL_PATTERN, description="ccxt's unified symbol, BASE/QUOTE[:SETTLE]")
]
TradeId = Annotated[
    str, Meta(pattern=TRADE_ID_PATTERN, description="the exchange's own id, unique per symbol")
]
Price = Annotated[
    str, Meta(pattern=DECIMAL_PATTERN, description="quote units per base unit, decimal text")
]
Amount = Annotated[str, Meta(pattern=DECIMAL_PATTERN, description="base units, decimal text")]
Volume = Annotated[str, Meta(pattern=SUM_PATTERN, description="base units, decimal text")]
QuoteVolume = Annotated[
    str,
    Meta(pattern=SUM_PATTERN, description="sum of price x amount, quote units, decimal text"),
]
# Marks a time for `fields.time_fields`.
_IS_TIME = {"is_time": True}
TimeUs = Annotated[
    int,
    Meta(ge=TIME_US_MIN, lt=TIME_US_MAX, description="Unix time, us, UTC", extra=_IS_TIME),
]
OpenTimeUs = Annotated[TimeUs, Meta(description="start of the window, Unix us, UTC")]
TimeframeName = Annotated[
    str,
    Meta(
        pattern="^(" + "|".join(TIMEFRAMES) + r")$(?!\n)",
        description="length of the candle; a week starts Monday 00:00 UTC",
    ),
]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Revision = Annotated[
    int,
    Meta(
        ge=0,
        le=2**63 - 1,
        description="log epoch x 2^44 + offset of the input record that caused this version; "
        "the highest one stands; 0 in the ingest log, where nothing is versioned yet",
    ),
]
Job = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9._-]{1,64}$(?!\n)",
        description="history job that the event belongs to; left out of live events",
    ),
]

IdsAreConsecutive = Annotated[
    bool | None,
    Meta(
        description="whether the exchange numbers the symbol's trades without holes, so that ids "
        "prove what is missing; left out by writers that do not say"
    ),
]

# ClickHouse numbers the values of each in this order: a new one goes to the end.
Side = Literal["unknown", "buy", "sell"]
Source = Literal["trades", "exchange", "mixed"]
Coverage = Literal["contiguous", "unverified", "partial", "gap", "exchange"]
StreamState = Literal["live", "disconnected", "halted"]
GapStatus = Literal["open", "filled", "unfillable"]
AuditResult = Literal["equal", "different", "missing_exchange", "missing_ours"]

# From best to worst: a rollup has the coverage of its worst part.
COVERAGE_ORDER: tuple[Coverage, ...] = ("contiguous", "exchange", "unverified", "partial", "gap")


class Event(Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    """What every event has: the market that it speaks of."""

    exchange: Exchange
    symbol: Symbol


class Trade(Event, frozen=True, kw_only=True, tag="trade"):
    """One execution, as the exchange printed it. Identity: exchange, symbol, trade_id."""

    trade_id: TradeId
    price: Price
    amount: Amount
    side: Annotated[Side, Meta(description="the taker's side")]
    trade_time_us: Annotated[TimeUs, Meta(description="the exchange's clock, Unix us")]
    receive_time_us: Annotated[TimeUs, Meta(description="our clock on receipt, Unix us")]
    job: Job | None = None


class Candle(Event, frozen=True, kw_only=True, tag="candle"):
    """Prices and volume of a window, with the proof of how complete they are.

    Identity: exchange, symbol, timeframe, open_time_us, revision. Fields that the source does not
    know are null; an empty window repeats the previous close with volume 0.
    """

    timeframe: TimeframeName
    open_time_us: OpenTimeUs
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Volume
    quote_volume: QuoteVolume | None
    buy_volume: Annotated[
        Volume | None, Meta(description="base units bought by takers; null when a side is unknown")
    ]
    trade_count: Annotated[
        Count | None, Meta(description="number of trades; null: the source does not know")
    ]
    first_trade_id: TradeId | None
    last_trade_id: TradeId | None
    revision: Revision
    source: Annotated[Source, Meta(description="what the values were made from")]
    coverage: Annotated[
        Coverage,
        Meta(
            description="contiguous: ids prove that no trade is missing; unverified: ids can't; "
            "partial: not followed from open to close; gap: trades are missing; "
            "exchange: the exchange's own values"
        ),
    ]
    job: Job | None = None


class Heartbeat(Event, frozen=True, kw_only=True, tag="heartbeat"):
    """How far the log is complete for a symbol, and whether its stream is live.

    Everything of the symbol earlier than `complete_until_us` is in the log already or covered by a
    Gap. Quiet, disconnected and halted are told apart by it.
    """

    complete_until_us: Annotated[TimeUs, Meta(description="exclusive, exchange clock, Unix us")]
    state: Annotated[StreamState, Meta(description="live, disconnected or halted")]
    job: Job | None = None
    ids_are_consecutive: IdsAreConsecutive = None


class Gap(Event, frozen=True, kw_only=True, tag="gap"):
    """Trades that are missing: `[start_time_us, end_time_us)` and, where ids tell, which ones.

    Identity: exchange, symbol, first_trade_id, start_time_us; the highest revision stands.
    """

    first_trade_id: Annotated[TradeId | None, Meta(description="first missing id; null: unknown")]
    last_trade_id: Annotated[TradeId | None, Meta(description="last missing id; null: unknown")]
    start_time_us: Annotated[TimeUs, Meta(description="time of the last trade before it")]
    end_time_us: Annotated[TimeUs, Meta(description="time of the first trade after it")]
    status: Annotated[GapStatus, Meta(description="open, filled or unfillable")]
    reason: Annotated[str, Meta(max_length=500, description="why it is missing, for people")]
    revision: Revision = 0
    job: Job | None = None


class HistoryMarker(Event, frozen=True, kw_only=True, tag="history"):
    """Start or end of a history job for a symbol: its events stand between the two, in order."""

    job: Job
    edge: Annotated[Literal["start", "end"], Meta(description="which of the two this is")]
    timeframe: Annotated[
        TimeframeName | None, Meta(description="of the job's candles; null: the job brings trades")
    ]
    start_time_us: TimeUs
    end_time_us: TimeUs
    ids_are_consecutive: IdsAreConsecutive = None


class Ids(Event, frozen=True, kw_only=True, tag="ids"):
    """What became of a run of trade ids that belong to no trade of the log.

    Identity: exchange, symbol, first_trade_id, time_us. A reader skips a reason that it does not
    know: a newer writer may have added it.
    """

    first_trade_id: Annotated[TradeId, Meta(description="first id of the run")]
    last_trade_id: Annotated[TradeId, Meta(description="last id of the run, included")]
    time_us: Annotated[
        TimeUs,
        Meta(
            description="the exchange's clock at the last of them; of the next trade where nothing "
            "shows that; Unix us"
        ),
    ]
    reason: Annotated[
        str,
        Meta(
            pattern=r"^[a-z_]{1,40}$(?!\n)",
            description="no_trade: the exchange leaves them out of its own candles, so none is "
            "missing",
        ),
    ]
    job: Job | None = None


# The reason of `Ids` that the exchange itself counts no trade under them.
NO_TRADE = "no_trade"


class StreamStatus(Event, frozen=True, kw_only=True, tag="status"):
    """The state of a symbol's stream, for readers; the highest revision stands."""

    state: Annotated[StreamState, Meta(description="live, disconnected or halted")]
    complete_until_us: TimeUs
    last_trade_time_us: TimeUs | None
    last_trade_id: TradeId | None
    revision: Revision


class FieldDifference(Struct, frozen=True, kw_only=True):
    """One field in which our candle and the exchange's own differ; decimal text or counts."""

    field: str
    ours: str | None
    exchange: str | None


class Audit(Event, frozen=True, kw_only=True, tag="audit"):
    """Our closed candle held against the exchange's own, field by field."""

    timeframe: TimeframeName
    open_time_us: OpenTimeUs
    result: Annotated[
        AuditResult, Meta(description="equal, different, missing_exchange or missing_ours")
    ]
    coverage: Annotated[Coverage | None, Meta(description="of our candle; null: we have none")]
    differences: Annotated[
        list[FieldDifference],
        Meta(description="fields that differ: ours and the exchange's, decimal text"),
    ]
    candle_revision: Revision | None
    exchange_revision: Revision | None
    revision: Revision


class DeadLetter(Struct, frozen=True, kw_only=True, tag_field="event", tag="dead_letter"):
    """Something that could not be accepted, kept with its bytes.

    Identity: `topic:partition:offset` of a record, `sha256:…` of a frame's bytes.
    """

    identity: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=400,
            description="topic:partition:offset of a record, sha256:... of a frame",
        ),
    ]
    reason: Annotated[
        str, Meta(pattern=r"^[a-z_]{1,40}$(?!\n)", description="a short code, such as bad_schema")
    ]
    error: Annotated[str, Meta(max_length=2000, description="expected, found, where; for people")]
    exchange: Annotated[str | None, Meta(description="exchange of the message; null: unknown")]
    symbol: Annotated[str | None, Meta(description="symbol of the message; null: unknown")]
    topic: Annotated[str | None, Meta(description="topic of the record; null for a frame")]
    partition: Annotated[
        int | None, Meta(description="Kafka partition of the record; null for a frame")
    ]
    offset: Annotated[int | None, Meta(description="Kafka offset of the record; null for a frame")]
    payload_base64: Annotated[str, Meta(description="the bytes, cut at 256 KiB, base64")]
    payload_bytes: Annotated[int, Meta(ge=0, description="full length before it was cut")]
    time_us: Annotated[
        int,
        Meta(ge=0, description="Kafka time of the record, receipt of a frame", extra=_IS_TIME),
    ]
