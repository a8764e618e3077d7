"""The kernel of one partition: records of the ingest log in, records of the market topics out.

Pure and deterministic: what comes out depends on the records and their offsets alone, not on how
they were batched.
"""

from dataclasses import dataclass
from itertools import repeat

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.errors import UnknownKindError
from alpha_pulse.contracts.market import SECOND_US, get_timeframe
from alpha_pulse.contracts.topics import CANDLES, DEAD_LETTERS, EXCHANGE_CANDLES, TRADES
from alpha_pulse.processors.candles.proof import Span
from alpha_pulse.processors.candles.rules import Rules
from alpha_pulse.processors.history.lines import Run, candle_runs, read_lines
from alpha_pulse.processors.kernel.admission import Refused
from alpha_pulse.processors.kernel.outputs import Emitter, Outputs
from alpha_pulse.processors.kernel.plain_trades import plain_trades
from alpha_pulse.processors.kernel.records import Intake
from alpha_pulse.processors.kernel.refusals import Refusals
from alpha_pulse.processors.kernel.symbol import Symbol
from alpha_pulse.processors.wire.records import EncodedRecords, Record, RecordsWriter

REVISION_EPOCH = 2**44


@dataclass(slots=True)
class Counters:
    """What happened to the records since the kernel was made."""

    records: int = 0
    trades: int = 0
    duplicates: int = 0
    late: int = 0
    dead_letters: int = 0
    unknown_kinds: int = 0


class Kernel:
    """State and outputs of one partition."""

    def __init__(self, config: ProcessorConfig, ingest_topic: str, partition: int) -> None:
        self.rules = Rules.of(config)
        self.counters = Counters()
        self.symbols: dict[bytes, Symbol] = {}
        self.dirty: set[bytes] = set()
        self._outputs = Outputs(audits=config.audits)
        self.position = 0
        self.state_record_bytes_max = config.state_record_bytes_max
        self._epoch = config.log_epoch * REVISION_EPOCH
        self._future_us = round(config.future_s_max * SECOND_US)
        self.plain = plain_trades(
            self.rules, self._epoch, self._outputs, self._change_stream, compiled=config.compiled
        )
        self._refusals = Refusals(config, ingest_topic, partition)
        self._intake = Intake(self.rules, self.symbols, self.adopt, self._emitter)

    def drain_outputs(self) -> dict[str, RecordsWriter]:
        """Return what came out since the last call."""
        return self._outputs.drain()

    def open_candles(self) -> list[Record]:
        """Return the open 1m candles that changed since a second of event time ago.

        To be called before the state is written, which forgets what changed. In a catch-up several
        seconds come as one.
        """
        records: list[Record] = []
        for key in sorted(self.dirty):
            symbol = self.symbols[key]
            self.plain.bring_back(key)
            second = symbol.live.closing.watermark_us // SECOND_US
            if second <= symbol.open_second:
                continue
            symbol.open_second = second
            candle = symbol.live.open_candle(self._epoch + self.position - 1)
            if candle is not None:
                records.append((key, encode(candle)))
        return records

    def process(self, records: EncodedRecords, timestamp_ms: int, next_offset: int) -> None:
        """Ingest the records of one Kafka batch, in offset order.

        timestamp_ms: Kafka's time of the batch; next_offset: where reading goes on after it.
        Raises: TooManyDeadLettersError by the limits of the configuration.
        """
        limit_us = timestamp_ms * 1000 + self._future_us
        row, count = 0, len(records)
        runs = candle_runs(records)
        while row < count:
            row, trades, closes = self.plain.run(records, row, limit_us)
            self.counters.trades += trades
            if closes:
                self._close(*records.record(row - 1)[:2])
            elif row < count:
                run = runs.get(row)
                if run is not None and self._ingest_run(run, limit_us):
                    row = run.end
                    continue
                self._ingest(*records.record(row), timestamp_ms, limit_us)
                row += 1
        self.dirty.update(self.plain.changed())
        self.counters.records += count
        self.position = next_offset

    def adopt(self, symbol: Symbol) -> Symbol:
        """Keep the state of a symbol; return the one that is kept."""
        kept = self.symbols.get(symbol.key)
        if kept is not None:
            return kept
        self.symbols[symbol.key] = symbol
        self.plain.add(symbol.key, symbol.live)
        return symbol

    def restore(self, symbol: Symbol) -> None:
        """Add a symbol of the state."""
        self.adopt(symbol)
        self.plain.hand_over(symbol.key)

    def bring_all_back(self) -> None:
        """Tell every stream what it does not know yet."""
        for key in self.symbols:
            self.plain.bring_back(key)

    def _change_stream(self, key: bytes) -> None:
        self._change(self.symbols[key])

    def _change(self, symbol: Symbol) -> None:
        symbol.encoded = None
        self.dirty.add(symbol.key)

    def _close(self, offset: int, key: bytes | None) -> None:
        assert key is not None
        symbol, publish = self.symbols[key], self._emitter(key, offset)
        self.plain.bring_back(key)
        closing, base = symbol.live.closing, self.rules.timeframes[0]
        from_us = closing.closed_until_us
        symbol.live.close(True, publish)
        symbol.settle(publish)
        self._change(symbol)
        self.plain.hand_over(key, (closing.closed_until_us - from_us) // base.duration_us)

    def _ingest(
        self, offset: int, key: bytes | None, value: bytes | None, timestamp_ms: int, limit_us: int
    ) -> None:
        if key in self.symbols:
            self.plain.bring_back(key)
        try:
            is_new = self._intake.ingest(offset, key, value, limit_us)
        except UnknownKindError:
            self.counters.unknown_kinds += 1
            return
        except Refused as refused:
            letter = self._refusals.letter(offset, key, value, timestamp_ms, refused)
            self._outputs.writer(DEAD_LETTERS).append((letter.identity.encode(), encode(letter)))
            self.counters.dead_letters += 1
            self._refusals.check(offset, letter)
        else:
            if is_new:
                assert key is not None
                assert value is not None
                self._outputs.writer(TRADES).append((key, value))
                self.counters.trades += 1
            elif is_new is False:
                self.counters.duplicates += 1
        if key in self.symbols:
            self.plain.hand_over(key)
            self._change(self.symbols[key])

    def _ingest_run(self, run: Run, limit_us: int) -> bool:
        """Ingest many candles of one job at once; False: they have to be looked at one by one."""
        symbol = self.symbols.get(run.key)
        job = None if symbol is None else symbol.job_with(run)
        if symbol is None or job is None:
            return False
        lines = read_lines(job.form, run.values, get_timeframe(job.timeframe))
        if lines is None or not job.can_ingest(lines, limit_us):
            return False
        revisions = [self._epoch + offset for offset in run.offsets]
        for topic, published in (
            (EXCHANGE_CANDLES, lines.exchange_lines(revisions)),
            (CANDLES[job.timeframe], lines.our_lines(revisions)),
        ):
            self._outputs.writer(topic).extend(zip(repeat(run.key), published, strict=False))
        job.ingest(lines, revisions, self._emitter(run.key, run.offsets[0]))
        self._change(symbol)
        return True

    def _emitter(self, key: bytes, offset: int) -> Emitter:
        return Emitter(self._outputs, key, self._epoch + offset)

    def records_were_lost(self) -> None:
        """Note that retention took records before they were read: nothing proves what they held.

        Ids show what is missing where they are consecutive; elsewhere a gap is open from the
        watermark up to the next heartbeat.
        """
        for symbol in self.symbols.values():
            live = symbol.live
            if not live.proof.consecutive:
                live.proof.spans.append(Span(live.closing.watermark_us, None, "disconnected"))
                self._change(symbol)
