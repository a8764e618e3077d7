"""The seam between the rules in Python and compiled code that follows them for plain trades.

A trade is plain when its bytes are canonical, its id is the symbol's next, and its time lies in the
newest window or the one that follows. Almost all are; whoever ingests them must come to the bytes
and the state that the rules come to.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from alpha_pulse.contracts.topics import Topic
from alpha_pulse.processors.candles.progress import Progress
from alpha_pulse.processors.candles.rules import Rules
from alpha_pulse.processors.candles.stream import Stream
from alpha_pulse.processors.kernel.outputs import Outputs
from alpha_pulse.processors.wire.records import EncodedRecords


class PlainTrades(Protocol):
    """Ingests plain trades of symbols, each for as long as its stream is handed over.

    topics: of the candles that it closes.
    """

    topics: Sequence[Topic]

    def add(self, key: bytes, stream: Stream) -> None:
        """Add a symbol; nothing of it is ingested before `hand_over`."""
        ...

    def run(self, records: EncodedRecords, row: int, limit_us: int) -> tuple[int, int, bool]:
        """Ingest plain trades of a batch from a row on, up to the first record that is none.

        Args:
            records: of the batch.
            row: where to begin.
            limit_us: what is later is too far ahead, and not plain.

        Returns: the row that comes next; how many trades were ingested; whether the last of them
        ended windows that its stream must close before the next row.
        """
        ...

    def bring_back(self, key: bytes) -> None:
        """Tell the symbol's stream what it does not know yet; needed before anything changes it."""
        ...

    def hand_over(self, key: bytes, ended: int | None = None) -> None:
        """Take the symbol's next trades, where its stream is ready for that.

        Args:
            key: of the symbol, which was brought back before its stream changed.
            ended: how many base windows the stream has just closed by a trade; None: none was due.
        """
        ...

    def progress(self, key: bytes) -> Progress | None:
        """Return what the symbol's stream does not know yet; None: it knows all."""
        ...

    def changed(self) -> list[bytes]:
        """Return the keys of the symbols that changed since the last call."""
        ...

    def deliver(self) -> None:
        """Add the candles that are held back to their topics."""
        ...


class NoPlainTrades:
    """Ingests nothing: every record is for the rules in Python."""

    topics: Sequence[Topic] = ()

    def add(self, key: bytes, stream: Stream) -> None:
        """Do nothing."""

    def run(self, records: EncodedRecords, row: int, limit_us: int) -> tuple[int, int, bool]:
        """Return that the row is not plain."""
        return row, 0, False

    def bring_back(self, key: bytes) -> None:
        """Do nothing: the stream knows all."""

    def hand_over(self, key: bytes, ended: int | None = None) -> None:
        """Do nothing."""

    def progress(self, key: bytes) -> Progress | None:
        """Return None: the stream knows all."""
        return None

    def changed(self) -> list[bytes]:
        """Return no keys."""
        return []

    def deliver(self) -> None:
        """Do nothing."""


def plain_trades(
    rules: Rules, revisions_from: int, outputs: Outputs, on_change: Callable[[bytes], None],
    *, compiled: bool,
) -> PlainTrades:  # fmt: skip
    """Return what ingests plain trades, with its place in the outputs.

    Args:
        rules: of every stream.
        revisions_from: a candle's revision is this and the offset of the trade that closed it.
        outputs: where trades and candles go.
        on_change: told the key of a symbol whose stream was brought up to date.
        compiled: False: the compiled code is not even imported.
    """
    if not compiled:
        return NoPlainTrades()
    from alpha_pulse.processors.compiled.trades import CompiledTrades

    found = CompiledTrades(
        rules, revisions_from, outputs.open_writer, on_change, audits=outputs.audits
    )
    outputs.share(found.topics, found.deliver)
    return found
