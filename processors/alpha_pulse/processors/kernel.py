"""The kernel of one partition: records of the ingest log in, records of the market topics out.

Pure and deterministic: what comes out depends on the records and their offsets alone, not on how
they were batched.
"""

from dataclasses import dataclass, field
from itertools import repeat

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, HistoryMarker
from alpha_pulse.contracts.market import (
    SECOND_US,
    check_exchange,
    check_symbol,
    get_timeframe,
    message_key,
)
from alpha_pulse.contracts.topics import CANDLES, DEAD_LETTERS, EXCHANGE_CANDLES, TRADES
from alpha_pulse.processors import hot_loop
from alpha_pulse.processors.admission import (
    CANONICAL_REST_BYTES,
    LeanTrade,
    Refused,
    check_exchange_candle,
    check_form,
    check_not_ahead,
    check_trade_id,
    decode,
    expected_start,
)
from alpha_pulse.processors.candle_job import CandleJob
from alpha_pulse.processors.candle_lines import Run, candle_runs, read_lines
from alpha_pulse.processors.candles import parse_units
from alpha_pulse.processors.hot_trades import HotTrades
from alpha_pulse.processors.outputs import Outputs, Publisher
from alpha_pulse.processors.proof import Span
from alpha_pulse.processors.refusals import Refusals
from alpha_pulse.processors.rules import Job, Rules
from alpha_pulse.processors.stream import Stream
from alpha_pulse.processors.wire import EncodedRecords, Record, RecordsWriter

REVISION_EPOCH = 2**44
JOBS_MAX = 16


@dataclass(slots=True)
class Symbol:
    """State of one symbol: its live stream, the history jobs that run, its key."""

    key: bytes
    live: Stream
    jobs: dict[str, Stream | CandleJob] = field(default_factory=dict)
    open_second: int = 0

    def job_with(self, run: Run) -> CandleJob | None:
        """Return the job whose candles look like those of a run."""
        for job in self.jobs.values():
            if isinstance(job, CandleJob) and run.has_form(job.form):
                return job
        return None


@dataclass(slots=True)
class Counters:
    """What happened to the records since the kernel was made."""

    records: int = 0
    trades: int = 0
    duplicates: int = 0
    late: int = 0
    dead_letters: int = 0


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
        self._hot = HotTrades(self.rules.timeframes[0].duration_us)
        self._refusals = Refusals(config, ingest_topic, partition)

    def take_outputs(self) -> dict[str, RecordsWriter]:
        """Return what came out since the last call."""
        return self._outputs.take()

    def open_candles(self) -> list[Record]:
        """Return the open 1m candles that changed since a second of event time ago.

        To be called before the state is written, which forgets what changed. In a catch-up several
        seconds come as one.
        """
        records: list[Record] = []
        for key in sorted(self.dirty):
            symbol = self.symbols[key]
            second = symbol.live.watermark_us // SECOND_US
            if second <= symbol.open_second:
                continue
            symbol.open_second = second
            candle = symbol.live.open_candle(self._epoch + self.position - 1)
            if candle is not None:
                records.append((key, encode(candle)))
        return records

    def process(self, records: EncodedRecords, timestamp_ms: int, next_offset: int) -> None:
        """Take in the records of one Kafka batch, in offset order.

        timestamp_ms: Kafka's time of the batch; next_offset: where reading goes on after it.
        Raises: TooManyDeadLettersError by the limits of the configuration.
        """
        limit_us = timestamp_ms * 1000 + self._future_us
        hot, trades = self._hot, self._outputs.writer(TRADES)
        row, count = 0, len(records)
        runs = candle_runs(records)
        while row < count:
            # Plain trades, which are almost all, take the loop; whatever it stops at, goes on here.
            row, taken, reason = hot.run(records, row, limit_us, trades)
            self.counters.trades += taken
            if reason == hot_loop.CLOSES:
                offset, key, _ = records.record(row - 1)
                assert key is not None
                self._close(key, offset)
            elif reason == hot_loop.NOT_PLAIN:
                run = runs.get(row)
                if run is not None and self._take_candles(run, limit_us):
                    row = run.end
                    continue
                self._cold(*records.record(row), timestamp_ms, limit_us)
                row += 1
        self.dirty |= hot.bring_all_back()
        self.counters.records += count
        self.position = next_offset

    def adopt(self, symbol: Symbol) -> Symbol:
        """Keep the state of a symbol; return the one that is kept."""
        kept = self.symbols.get(symbol.key)
        if kept is not None:
            return kept
        self.symbols[symbol.key] = symbol
        self._hot.add(symbol.key, symbol.live)
        self._hot.hand_over(symbol.key)
        return symbol

    def _close(self, key: bytes, offset: int) -> None:
        self._hot.bring_ended_back(key)
        publish = self._publisher(key, offset)
        symbol = self.symbols[key]
        symbol.live.close_by_trade(publish)
        self._settle(symbol, publish)
        self._hot.go_on(key)

    def _cold(
        self, offset: int, key: bytes | None, value: bytes | None, timestamp_ms: int, limit_us: int
    ) -> None:
        if key in self.symbols:
            self._hot.bring_back(key)
        try:
            event = decode(value)
            if isinstance(event, LeanTrade):
                assert value is not None
                self._trade(event, key, value, offset, limit_us)
            else:
                self._event(event, key, offset, limit_us)
        except Refused as refused:
            letter = self._refusals.letter(offset, key, value, timestamp_ms, refused)
            self._outputs.writer(DEAD_LETTERS).append((letter.identity.encode(), encode(letter)))
            self.counters.dead_letters += 1
            self._refusals.check(offset, letter)
        if key in self.symbols:
            self._hot.hand_over(key)
            self.dirty.add(key)

    def _take_candles(self, run: Run, limit_us: int) -> bool:
        """Take in many candles of one job at once; False: they have to be looked at one by one."""
        symbol = self.symbols.get(run.key)
        job = None if symbol is None else symbol.job_with(run)
        if job is None:
            return False
        lines = read_lines(job.form, run.values, get_timeframe(job.timeframe))
        if lines is None or not job.can_take(lines, limit_us):
            return False
        revisions = [self._epoch + offset for offset in run.offsets]
        for topic, published in (
            (EXCHANGE_CANDLES, lines.exchange_lines(revisions)),
            (CANDLES[job.timeframe], lines.our_lines(revisions)),
        ):
            self._outputs.writer(topic).extend(zip(repeat(run.key), published, strict=False))
        job.take(lines, revisions, self._publisher(run.key, run.offsets[0]))
        self.dirty.add(run.key)
        return True

    def _publisher(self, key: bytes, offset: int) -> Publisher:
        return Publisher(self._outputs, key, self._epoch + offset)

    def records_were_lost(self) -> None:
        """Note that retention took records before they were read: nothing proves what they held.

        Ids show what is missing where they are consecutive; elsewhere a gap is open from the
        watermark up to the next heartbeat.
        """
        for symbol in self.symbols.values():
            live = symbol.live
            if not live.proof.consecutive:
                live.proof.spans.append(Span(live.watermark_us, None, "disconnected"))
                self.dirty.add(symbol.key)

    # --- trades -------------------------------------------------------------------------------

    def _trade(
        self, trade: LeanTrade, key: bytes | None, value: bytes, offset: int, limit_us: int
    ) -> None:
        symbol = self._check_key(key, trade.exchange, trade.symbol)
        live = symbol.live
        start = expected_start(live.start, trade.trade_id)
        if trade.job is not None or not (
            value.startswith(start)
            and len(value) - len(trade.price) - len(trade.amount) - len(trade.side)
            == len(start) + CANONICAL_REST_BYTES
        ):
            check_form(value, trade)
        time_us = trade.trade_time_us
        check_not_ahead(time_us, limit_us)
        number = check_trade_id(trade.trade_id, live.proof.consecutive)
        price_units = _positive(trade.price, "price")
        amount_units = _positive(trade.amount, "amount")
        symbol = self.adopt(symbol)

        publish = self._publisher(symbol.key, offset)
        if trade.job is None:
            is_new = live.trade(
                number, trade.trade_id, trade.price, price_units, amount_units, trade.side,
                time_us, publish,
            )  # fmt: skip
        else:
            is_new = self._job_trade(symbol, trade, number, price_units, amount_units, publish)
        if is_new:
            self._outputs.writer(TRADES).append((symbol.key, value))
            self.counters.trades += 1
        else:
            self.counters.duplicates += 1
        self._settle(symbol, publish)

    def _job_trade(
        self, symbol: Symbol, trade: LeanTrade, number: int, price_units: int, amount_units: int,
        publish: Publisher,
    ) -> bool:  # fmt: skip
        live = symbol.live
        known = live.knows(number, trade.trade_id)
        job = symbol.jobs.get(trade.job or "")
        arguments = (
            number, trade.trade_id, trade.price, price_units, amount_units, trade.side,
            trade.trade_time_us, publish,
        )  # fmt: skip
        if job is not None:
            new_to_job = job.trade(*arguments)
            if not new_to_job:
                return False
        # What history brings may be just what the live stream waits for.
        if live.proof.consecutive and live.proof.missing.find(number) is not None:
            live.trade(*arguments)
        return not known

    # --- other events -------------------------------------------------------------------------

    def _event(
        self,
        event: Candle | Heartbeat | Gap | HistoryMarker,
        key: bytes | None,
        offset: int,
        limit_us: int,
    ) -> None:
        symbol = self._check_key(key, event.exchange, event.symbol)
        if isinstance(event, Candle):
            check_exchange_candle(event)
            duration_us = get_timeframe(event.timeframe).duration_us
            check_not_ahead(event.open_time_us + duration_us, limit_us)
        elif isinstance(event, Heartbeat):
            check_not_ahead(event.complete_until_us, limit_us)
        elif isinstance(event, Gap):
            self._check_gap(event, symbol, limit_us)
        elif event.end_time_us < event.start_time_us:
            raise Refused("bad_history", "expected a job that ends after its start")
        symbol = self.adopt(symbol)
        publish = self._publisher(symbol.key, offset)
        if isinstance(event, HistoryMarker):
            self._history(symbol, event, publish)
        else:
            self._to_stream(symbol, event, publish)
        self._settle(symbol, publish)

    def _check_gap(self, gap: Gap, symbol: Symbol, limit_us: int) -> None:
        check_not_ahead(gap.end_time_us, limit_us)
        if gap.end_time_us < gap.start_time_us:
            raise Refused("bad_gap", "expected a gap that ends after its start")
        ids = (gap.first_trade_id, gap.last_trade_id)
        if symbol.live.proof.consecutive and ids[0] is not None and ids[1] is not None:
            first, last = (check_trade_id(trade_id, True) for trade_id in ids if trade_id)
            if first > last:
                raise Refused("bad_gap", f"expected ascending ids, found {first} to {last}")

    def _to_stream(
        self, symbol: Symbol, event: Candle | Heartbeat | Gap, publish: Publisher
    ) -> None:
        stream = symbol.live if event.job is None else symbol.jobs.get(event.job)
        if isinstance(event, Candle):
            publish.exchange_candle(event)
            if stream is not None:
                stream.exchange_candle(event, publish)
        elif isinstance(event, Heartbeat):
            if stream is not None:
                stream.heartbeat(event, publish)
            if event.job is None:
                publish.status(event, symbol.live)
        elif stream is not None:
            stream.gap(event, publish)
        else:
            publish(event)

    def _history(self, symbol: Symbol, marker: HistoryMarker, publish: Publisher) -> None:
        if marker.edge == "start":
            live = symbol.live
            # A job that begins again begins anew.
            symbol.jobs.pop(marker.job, None)
            while len(symbol.jobs) >= JOBS_MAX:
                symbol.jobs.pop(next(iter(symbol.jobs)))
            symbol.jobs[marker.job] = self._new_job(live, marker)
            return
        job = symbol.jobs.get(marker.job)
        if job is not None:
            job.finish(publish)

    def _new_job(self, live: Stream, marker: HistoryMarker) -> Stream | CandleJob:
        name, start_us, end_us = marker.job, marker.start_time_us, marker.end_time_us
        if marker.timeframe is None:
            return Stream.new(live.exchange, live.symbol, self.rules, Job(name, start_us, end_us))
        return CandleJob(
            live.exchange, live.symbol, self.rules.timeframes, name, marker.timeframe, start_us,
            end_us,
        )  # fmt: skip

    # --- state and outputs --------------------------------------------------------------------

    def _check_key(self, key: bytes | None, exchange: str, symbol: str) -> Symbol:
        expected = message_key(exchange, symbol)
        if key != expected:
            raise Refused("bad_key", f"expected the key {expected[:200]!r}, found {key!r}"[:2000])
        found = self.symbols.get(expected)
        if found is None:
            try:
                check_exchange(exchange)
                check_symbol(symbol)
            except ValidationError as error:
                raise Refused("bad_schema", str(error)[:2000]) from error
            # Kept only once the event is admitted, so that rubbish leaves nothing behind.
            found = Symbol(
                expected,
                Stream.new(exchange, symbol, self.rules),
            )
        return found

    def _settle(self, symbol: Symbol, publish: Publisher) -> None:
        live = symbol.live
        if live.is_touched:
            live.settle(publish.revision, publish)
        if symbol.jobs:
            for name, job in list(symbol.jobs.items()):
                if job.is_touched:
                    job.settle(publish.revision, publish)
                if job.is_finished:
                    del symbol.jobs[name]


def _positive(text: str, name: str) -> int:
    try:
        units = parse_units(text)
    except ValidationError as error:
        raise Refused("bad_number", f"{error} in {name}") from error
    if units == 0:
        raise Refused("bad_number", f"expected a {name} above 0, found {text}")
    return units
