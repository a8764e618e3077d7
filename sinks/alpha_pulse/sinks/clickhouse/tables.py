"""Where each topic is stored: its table, the fields inserted, the time that decides the month."""

from dataclasses import dataclass

import msgspec

from alpha_pulse.contracts.events import Audit, Candle, DeadLetter, Gap, StreamStatus, Trade
from alpha_pulse.contracts.topics import EXCHANGE_CANDLES, STORED_TOPICS, Topic

# Put before the record's own fields, so that a record can't say where it stands: of two equal JSON
# keys ClickHouse keeps the first or refuses the row.
POSITION_COLUMNS = ("k_topic", "k_partition", "k_offset")


@dataclass(frozen=True, slots=True)
class Table:
    """An append-only table of one kind of event.

    time_field: the field whose month decides the table partition. time_columns: columns that hold a
    `…_us` field as a time; decimal_columns: those that hold decimal text as a number.
    """

    name: str
    event: type[msgspec.Struct]
    time_field: str
    time_columns: dict[str, str]
    decimal_columns: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the event on the wire, in the order of its Struct."""
        return tuple(field.encode_name for field in msgspec.structs.fields(self.event))

    @property
    def insert_columns(self) -> tuple[str, ...]:
        """Columns that an insert names; everything else is computed by the table."""
        return (*POSITION_COLUMNS, *self.fields)

    def column_of(self, field: str) -> str:
        """Return the column that keeps a field's value."""
        if field in self.decimal_columns:
            return f"{field}_dec"
        return self.time_columns.get(field, field)


_CANDLE_DECIMALS = ("open", "high", "low", "close", "volume", "quote_volume", "buy_volume")

TRADES_LOG = Table(
    "trades_log",
    Trade,
    "trade_time_us",
    {"trade_time_us": "trade_time", "receive_time_us": "receive_time"},
    ("price", "amount"),
)
CANDLES_LOG = Table(
    "candles_log", Candle, "open_time_us", {"open_time_us": "open_time"}, _CANDLE_DECIMALS
)
EXCHANGE_CANDLES_LOG = Table(
    "exchange_candles_log", Candle, "open_time_us", {"open_time_us": "open_time"}, _CANDLE_DECIMALS
)
GAPS_LOG = Table(
    "gaps_log",
    Gap,
    "start_time_us",
    {"start_time_us": "start_time", "end_time_us": "end_time"},
)
STATUS_LOG = Table(
    "status_log",
    StreamStatus,
    "complete_until_us",
    {"complete_until_us": "complete_until", "last_trade_time_us": "last_trade_time"},
)
AUDITS_LOG = Table("audits_log", Audit, "open_time_us", {"open_time_us": "open_time"})
DEAD_LETTERS_LOG = Table("dead_letters_log", DeadLetter, "time_us", {"time_us": "time"})

LOG_TABLES: tuple[Table, ...] = (
    TRADES_LOG,
    CANDLES_LOG,
    EXCHANGE_CANDLES_LOG,
    GAPS_LOG,
    STATUS_LOG,
    AUDITS_LOG,
    DEAD_LETTERS_LOG,
)


def table_of(topic: Topic) -> Table:
    """Return the table that stores a topic."""
    if topic is EXCHANGE_CANDLES:
        return EXCHANGE_CANDLES_LOG
    return next(table for table in LOG_TABLES if topic.events == (table.event,))


def stored_tables(namespace: str) -> dict[str, Table]:
    """Return the table of each stored topic, by the topic's full name."""
    return {topic.full_name(namespace): table_of(topic) for topic in STORED_TOPICS}
