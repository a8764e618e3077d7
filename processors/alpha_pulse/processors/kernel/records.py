"""What one record means: admitted, and into its streams."""

from collections.abc import Callable, Mapping
from typing import assert_never

from alpha_pulse.contracts.decimals import parse_units
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, HistoryMarker, Ids
from alpha_pulse.contracts.kinds import UncommonIngestEvent
from alpha_pulse.contracts.market import check_exchange, check_symbol, get_timeframe, message_key
from alpha_pulse.processors.candles.rules import Job, Rules
from alpha_pulse.processors.candles.stream import Stream
from alpha_pulse.processors.history.job import CandleJob
from alpha_pulse.processors.kernel.admission import (
    LeanTrade,
    Refused,
    check_exchange_candle,
    check_form,
    check_ids,
    check_not_ahead,
    check_trade_id,
    decode,
)
from alpha_pulse.processors.kernel.earlier_logs import had_consecutive_ids
from alpha_pulse.processors.kernel.outputs import Emitter
from alpha_pulse.processors.kernel.symbol import Symbol
from alpha_pulse.processors.wire.canonical import TRADE_REST_BYTES, start_of_trade

JOBS_MAX = 16


class Intake:
    """Hands records to the streams of their symbols, one by one.

    symbols: of the partition. adopt: keeps a symbol's state, and returns what is kept.
    emitter: what emits for a key and an offset.
    """

    def __init__(
        self,
        rules: Rules,
        symbols: Mapping[bytes, Symbol],
        adopt: Callable[[Symbol], Symbol],
        emitter: Callable[[bytes, int], Emitter],
    ) -> None:
        self._rules = rules
        self._symbols = symbols
        self._adopt = adopt
        self._emitter = emitter

    def ingest(
        self, offset: int, key: bytes | None, value: bytes | None, limit_us: int
    ) -> bool | None:
        """Hand a record to its streams; return whether it is a new trade, None: it is no trade.

        Raises: Refused or UnknownKindError, and nothing has changed.
        """
        event = decode(value)
        if not isinstance(event, LeanTrade):
            self._event(event, key, offset, limit_us)
            return None
        assert value is not None
        return self._trade(event, key, value, offset, limit_us)

    def _trade(
        self, trade: LeanTrade, key: bytes | None, value: bytes, offset: int, limit_us: int
    ) -> bool:
        symbol = self._check_key(key, trade.exchange, trade.symbol)
        live = symbol.live
        start = start_of_trade(symbol.start_of_trades, trade.trade_id)
        if trade.job is not None or not (
            value.startswith(start)
            and len(value) - len(trade.price) - len(trade.amount) - len(trade.side)
            == len(start) + TRADE_REST_BYTES
        ):
            check_form(value, trade)
        time_us = trade.trade_time_us
        check_not_ahead(time_us, limit_us)
        number = check_trade_id(trade.trade_id, live.proof.consecutive)
        price_units = _positive(trade.price, "price")
        amount_units = _positive(trade.amount, "amount")
        symbol = self._adopt(symbol)

        publish = self._emitter(symbol.key, offset)
        if trade.job is None:
            is_new = live.trade(
                number, trade.trade_id, trade.price, price_units, amount_units, trade.side,
                time_us, publish,
            )  # fmt: skip
        else:
            is_new = self._job_trade(symbol, trade, number, price_units, amount_units, publish)
        symbol.settle(publish)
        return is_new

    def _job_trade(
        self, symbol: Symbol, trade: LeanTrade, number: int, price_units: int, amount_units: int,
        publish: Emitter,
    ) -> bool:  # fmt: skip
        live = symbol.live
        known = live.order.knows(number, trade.trade_id)
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

    def _event(
        self, event: UncommonIngestEvent, key: bytes | None, offset: int, limit_us: int
    ) -> None:
        symbol = self._check_key(key, event.exchange, event.symbol)
        self._check(event, symbol, limit_us)
        symbol = self._adopt(symbol)
        publish = self._emitter(symbol.key, offset)
        stream = symbol.live if event.job is None else symbol.jobs.get(event.job)
        match event:
            case Candle():
                publish.exchange_candle(event)
                if stream is not None:
                    stream.exchange_candle(event, publish)
            case Heartbeat():
                symbol.learn_ids(event.ids_are_consecutive)
                if stream is not None:
                    stream.heartbeat(event, publish)
                if event.job is None:
                    publish.status(event, symbol.live)
            case Gap():
                if stream is not None:
                    stream.gap(event, publish)
                else:
                    publish(event)
            case Ids():
                self._ids(symbol, event, publish)
            case HistoryMarker():
                symbol.learn_ids(event.ids_are_consecutive)
                self._history(symbol, event, publish)
            case _:
                assert_never(event)
        symbol.settle(publish)

    def _check(self, event: UncommonIngestEvent, symbol: Symbol, limit_us: int) -> None:
        match event:
            case Candle():
                check_exchange_candle(event)
                duration_us = get_timeframe(event.timeframe).duration_us
                check_not_ahead(event.open_time_us + duration_us, limit_us)
            case Heartbeat():
                check_not_ahead(event.complete_until_us, limit_us)
            case Gap():
                self._check_gap(event, symbol, limit_us)
            case Ids():
                check_not_ahead(event.time_us, limit_us)
                check_ids(event, symbol.live.proof.consecutive)
            case HistoryMarker():
                if event.end_time_us < event.start_time_us:
                    raise Refused("bad_history", "expected a job that ends after its start")
            case _:
                assert_never(event)

    def _check_gap(self, gap: Gap, symbol: Symbol, limit_us: int) -> None:
        check_not_ahead(gap.end_time_us, limit_us)
        if gap.end_time_us < gap.start_time_us:
            raise Refused("bad_gap", "expected a gap that ends after its start")
        ids = (gap.first_trade_id, gap.last_trade_id)
        if symbol.live.proof.consecutive and ids[0] is not None and ids[1] is not None:
            first, last = (check_trade_id(trade_id, True) for trade_id in ids if trade_id)
            if first > last:
                raise Refused("bad_gap", f"expected ascending ids, found {first} to {last}")

    def _ids(self, symbol: Symbol, ids: Ids, publish: Emitter) -> None:
        first, last = int(ids.first_trade_id), int(ids.last_trade_id)
        live = symbol.live
        if ids.job is None:
            is_new = live.ids(first, last, ids.time_us, publish)
        else:
            job = symbol.jobs.get(ids.job)
            is_new = job is None or job.ids(first, last, ids.time_us, publish)
            # What history explains may be just what the live stream waits for.
            live.explain(first, last, ids.time_us, publish)
        if is_new:
            publish.ids(ids)

    def _history(self, symbol: Symbol, marker: HistoryMarker, publish: Emitter) -> None:
        if marker.edge == "start":
            live = symbol.live
            # A job that begins again starts from nothing.
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
            job = Job(name, start_us, end_us)
            return Stream.new(live.exchange, live.symbol, self._rules, live.proof.consecutive, job)
        return CandleJob(
            live.exchange, live.symbol, self._rules.timeframes, name, marker.timeframe, start_us,
            end_us,
        )  # fmt: skip

    def _check_key(self, key: bytes | None, exchange: str, symbol: str) -> Symbol:
        expected = message_key(exchange, symbol)
        if key != expected:
            raise Refused("bad_key", f"expected the key {expected[:200]!r}, found {key!r}"[:2000])
        found = self._symbols.get(expected)
        if found is None:
            try:
                check_exchange(exchange)
                check_symbol(symbol)
            except ValidationError as error:
                raise Refused("bad_schema", str(error)[:2000]) from error
            # Kept only once the event is admitted, so that rubbish leaves nothing behind.
            consecutive = had_consecutive_ids(exchange)  # until the log says so itself
            found = Symbol(expected, Stream.new(exchange, symbol, self._rules, consecutive))
        return found


def _positive(text: str, name: str) -> int:
    try:
        units = parse_units(text)
    except ValidationError as error:
        raise Refused("bad_number", f"{error} in {name}") from error
    if units == 0:
        raise Refused("bad_number", f"expected a {name} above 0, found {text}")
    return units
