"""`HistoricalDataManager`: candles of a window, complete in a storage or missing with a reason."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import ParamSpec, TypeVar

import structlog

from alpha_pulse.contracts.errors import (
    DataFetchError,
    MarketWindow,
    StorageError,
    ValidationError,
    telling,
)
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.interfaces import Fetcher, MissingCandles, Storage
from alpha_pulse.contracts.market import (
    TIME_US_MAX,
    TIME_US_MIN,
    Timeframe,
    check_exchange,
    check_symbol,
    get_timeframe,
)
from alpha_pulse.contracts.validation import validate_candle
from alpha_pulse.data_pipeline.core.models import CoverageReport, ExchangeType
from alpha_pulse.producers.history.missing import (
    Known,
    Window,
    explain,
    first_open,
    missing_windows,
)

log = structlog.get_logger()

# A closed candle may change for so long yet; until then it counts as open.
FINAL_AFTER_US = 10_000_000
# Holes that are near one another are asked for together, so that thousands cost few requests.
JOINED_CANDLES_MAX = 500

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _refusing_other_arguments(
    call: Callable[Arguments, Awaitable[Result]],
) -> Callable[Arguments, Awaitable[Result]]:
    # Arguments that are missing or unknown are the caller's mistake like any other bad argument,
    # and end in the same `except ValidationError`.
    signature = inspect.signature(call)

    @wraps(call)
    async def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            names = [name for name in signature.parameters if name != "self"]
            raise ValidationError(
                f"expected the arguments {', '.join(names)}, found: {error}; see docs/library.md"
            ) from error
        return await call(*args, **kwargs)

    return checked


@dataclass(frozen=True, slots=True)
class _Wanted:
    # Whole candles of one market: those that open in [start_us, end_us).
    exchange: str
    symbol: str
    frame: Timeframe
    start_us: int
    end_us: int

    @property
    def about(self) -> MarketWindow:
        return MarketWindow(self.exchange, self.symbol, self.frame.name, self.start_us, self.end_us)

    @property
    def market(self) -> tuple[str, str, str]:
        return self.exchange, self.symbol, self.frame.name


class HistoricalDataManager:
    """Sees to it that a storage holds the past: fetches what is missing there and nothing else."""

    def __init__(self, storage: Storage, fetcher: Fetcher) -> None:
        self.storage = storage
        self.fetcher = fetcher

    @_refusing_other_arguments
    async def ensure_data_available(
        self,
        exchange: ExchangeType | str,
        symbol: str,
        timeframe: str,
        start_time: datetime,
        end_time: datetime,
    ) -> CoverageReport:
        """Return what of a window is stored, after everything that could be had was fetched.

        start_time, end_time: aware; the candles that lie wholly inside are meant. Fetched candles
        are stored page by page: after an error, or a crash, a further call goes on from there.
        A candle that breaks the contract is logged, left out and missing as `refused`; the rest of
        its page is stored.
        Raises: ValidationError for bad arguments; DataFetchError when the exchange does not answer
        or refuses, or limits this address for longer than two minutes; StorageError. Each names its
        window.
        """
        wanted = self._wanted(exchange, symbol, timeframe, start_time, end_time)
        with telling(wanted.about):
            return await self._completed(wanted, await self._missing(wanted))

    @_refusing_other_arguments
    async def get_historical_data(
        self,
        exchange: ExchangeType | str,
        symbol: str,
        timeframe: str,
        start_time: datetime,
        end_time: datetime,
    ) -> list[Candle]:
        """Return the stored candles that lie wholly inside a window, ascending; fetches nothing.

        Raises: ValidationError for bad arguments, StorageError.
        """
        wanted = self._wanted(exchange, symbol, timeframe, start_time, end_time)
        with telling(wanted.about):
            return await self.storage.load_candles(*wanted.market, wanted.start_us, wanted.end_us)

    async def _completed(self, wanted: _Wanted, missing: Sequence[Window]) -> CoverageReport:
        count = _candles(Window(wanted.start_us, wanted.end_us), wanted.frame)
        left, reasons, fetched = missing, list[MissingCandles](), 0
        if missing:
            async with self.fetcher.connected(wanted.exchange):
                now_us = await self.fetcher.now_us(wanted.exchange)
                closed_us = wanted.frame.open_time_us(now_us - FINAL_AFTER_US)
                refused: list[Window] = []
                fetched = await self._fetch(wanted, missing, closed_us, refused)
                left = await self._missing(wanted)
                for run in explain(left, wanted.frame, Known(refused=refused)):
                    window = Window(run.start_us, run.end_us)
                    if run.reason == "refused":
                        count = _candles(window, wanted.frame)
                        reasons.append(MissingCandles(run.start_us, run.end_us, count, "refused"))
                    else:
                        reasons += await self._why_missing(wanted, window, closed_us)
        stored = count - sum(_candles(window, wanted.frame) for window in left)
        had = count - sum(_candles(window, wanted.frame) for window in missing)
        if stored < had + fetched:
            raise StorageError(
                f"expected {had + fetched} candles to be stored, {fetched} of them fetched just now"
                f", found {stored}; look at the storage, then call again",
                wanted.about,
            )
        return CoverageReport(
            *wanted.market,
            wanted.start_us,
            wanted.end_us,
            had=stored - fetched,
            fetched=fetched,
            missing=tuple(reasons),
        )

    async def _missing(self, wanted: _Wanted) -> list[Window]:
        window = (wanted.start_us, wanted.end_us)
        stored = await self.storage.open_times_us(*wanted.market, *window)
        return missing_windows(stored, wanted.frame, *window)

    async def _why_missing(
        self, wanted: _Wanted, window: Window, closed_us: int
    ) -> list[MissingCandles]:
        start_us, end_us = window.start_us, max(window.start_us, min(window.end_us, closed_us))
        reasons = []
        if start_us < end_us:
            reasons += await self.fetcher.why_missing(*wanted.market, start_us, end_us)
        if end_us < window.end_us:
            count = _candles(Window(end_us, window.end_us), wanted.frame)
            reasons.append(MissingCandles(end_us, window.end_us, count, "open"))
        return reasons

    async def _fetch(
        self, wanted: _Wanted, missing: Sequence[Window], closed_us: int, refused: list[Window]
    ) -> int:
        # Returns how many candles of the missing windows came and were stored.
        fetched = 0
        for joined in _joined(missing, wanted.frame):
            end_us = min(joined[-1].end_us, closed_us)
            if joined[0].start_us >= end_us:
                continue
            lacking = [range(w.start_us, w.end_us, wanted.frame.duration_us) for w in joined]
            newest_us = 0
            pages = self.fetcher.fetch_candles(*wanted.market, joined[0].start_us, end_us)
            async with aclosing(pages):
                async for page in pages:
                    candles = []
                    for candle in page:
                        time_us = candle.open_time_us
                        if time_us > newest_us and any(time_us in times for times in lacking):
                            newest_us = time_us
                            candles.append(candle)
                    valid = _valid(candles, wanted, refused)
                    fetched += await self.storage.save_candles(valid)
        await self.storage.flush()
        return fetched

    def _wanted(
        self,
        exchange: ExchangeType | str,
        symbol: str,
        timeframe: str,
        start_time: datetime,
        end_time: datetime,
    ) -> _Wanted:
        with telling(_told(exchange, symbol, timeframe, start_time, end_time)):
            start_us, end_us = _time_us("start_time", start_time), _time_us("end_time", end_time)
            name = self.fetcher.exchange_name(check_exchange(exchange))
            frame = get_timeframe(timeframe)
            check_symbol(symbol)
            if start_us >= end_us:
                raise ValidationError(
                    "expected start_time before end_time, found the contrary; swap them"
                )
            whole = first_open(frame, start_us), frame.open_time_us(end_us)
            if whole[0] >= whole[1]:
                raise ValidationError(
                    f"expected a window with at least one whole {frame} candle, found none; ask "
                    "for a longer one"
                )
        return _Wanted(name, symbol, frame, *whole)


def _told(
    exchange: object, symbol: object, timeframe: object, start_time: object, end_time: object
) -> MarketWindow:
    # What of the arguments can be shown, for an error about one of them.
    def text(value: object) -> str | None:
        return value[:80] if isinstance(value, str) and value.isprintable() else None

    def time_us(value: object) -> int | None:
        if not isinstance(value, datetime) or value.utcoffset() is None:
            return None
        return (value - _EPOCH) // timedelta(microseconds=1)

    return MarketWindow(
        text(exchange), text(symbol), text(timeframe), time_us(start_time), time_us(end_time)
    )


def _time_us(name: str, time: datetime) -> int:
    if not isinstance(time, datetime):
        raise ValidationError(f"expected a datetime as {name}, found {time!r}")
    if time.utcoffset() is None:
        raise ValidationError(
            f"expected an aware datetime as {name}, found {time.isoformat()} without a time zone; "
            "write datetime(2026, 1, 1, tzinfo=UTC) or datetime.now(UTC)"
        )
    time_us = (time - _EPOCH) // timedelta(microseconds=1)
    if not TIME_US_MIN <= time_us <= TIME_US_MAX:
        raise ValidationError(f"expected {name} from 2009 to 2100, found {time.isoformat()}")
    return time_us


def _valid(candles: Sequence[Candle], wanted: _Wanted, refused: list[Window]) -> list[Candle]:
    # One that breaks the contract costs only itself: its window is appended to `refused`.
    found: list[Candle] = []
    for candle in candles:
        market = (candle.exchange, candle.symbol, candle.timeframe)
        if market != wanted.market:
            raise DataFetchError(
                f"expected candles of {' '.join(wanted.market)}, found {' '.join(market)}; the "
                "fetcher mixes markets up"
            )
        try:
            validate_candle(candle)
        except ValidationError as error:
            open_us = candle.open_time_us
            refused.append(Window(open_us, open_us + wanted.frame.duration_us))
            log.warning("candle.refused", open_time_us=open_us, error=str(error)[:300])
        else:
            found.append(candle)
    return found


def _joined(windows: Sequence[Window], frame: Timeframe) -> list[list[Window]]:
    found: list[list[Window]] = []
    for window in windows:
        if found and _candles(Window(found[-1][0].start_us, window.end_us), frame) <= (
            JOINED_CANDLES_MAX
        ):
            found[-1].append(window)
        else:
            found.append([window])
    return found


def _candles(window: Window, frame: Timeframe) -> int:
    return (window.end_us - window.start_us) // frame.duration_us
