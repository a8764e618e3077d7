"""What the page shows of the past: candles, gaps and markets from ClickHouse, read-only.

Every query is a GET, which ClickHouse runs read-only whoever asks. What came from a browser was
checked before it came here, and travels as a query parameter, never as text of a query.
"""

import ssl
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import aiohttp
import msgspec

from alpha_pulse.contracts.config import ClickHouseConfig, PageConfig
from alpha_pulse.contracts.config_sources import without_password
from alpha_pulse.contracts.errors import ConfigError, StorageError
from alpha_pulse.contracts.market import SECOND_US, Timeframe, get_timeframe
from alpha_pulse.contracts.topics import CANDLES
from alpha_pulse.page.chart import Chart, ChartCandle, GapRow, MarketRow

BASE_TIMEFRAME = "1m"
_BASE = get_timeframe(BASE_TIMEFRAME)
MARKETS_MAX = 500
GAPS_MAX = 50
RATE_WINDOW_S = 10
REQUEST_TIMEOUT_S = 20.0
# Nothing is there yet: the sink makes database and tables when it starts.
_NOT_YET = ("(UNKNOWN_DATABASE)", "(UNKNOWN_TABLE)")

_OHLC = "toString(open), toString(high), toString(low), toString(close), toString(volume)"
_NEWEST = """
SELECT toUnixTimestamp64Micro(open_time) FROM latest_candles
WHERE exchange = {exchange:String} AND symbol = {symbol:String} AND timeframe = {timeframe:String}
"""
_STORED = f"""
SELECT toUnixTimestamp64Micro(open_time), {_OHLC}, trade_count, coverage, toString(revision)
FROM candles
WHERE exchange = {{exchange:String}} AND symbol = {{symbol:String}}
  AND timeframe = {{timeframe:String}}
  AND open_time >= fromUnixTimestamp64Micro({{start_us:Int64}}, 'UTC')
  AND open_time < fromUnixTimestamp64Micro({{end_us:Int64}}, 'UTC')
ORDER BY open_time
"""
# Any other length is made of minutes; one that is not whole yet has no revision.
_MADE = f"""
SELECT toUnixTimestamp64Micro(open_time), {_OHLC}, trade_count, coverage, '0'
FROM ohlc_from_candles(exchange = {{exchange:String}}, symbol = {{symbol:String}},
                       timeframe = '{BASE_TIMEFRAME}', interval_s = {{interval_s:UInt32}},
                       start = fromUnixTimestamp64Micro({{start_us:Int64}}, 'UTC'),
                       end = fromUnixTimestamp64Micro({{end_us:Int64}}, 'UTC'))
ORDER BY open_time
"""
_GAPS = f"""
SELECT toUnixTimestamp64Micro(start_time), toUnixTimestamp64Micro(end_time), first_trade_id,
       last_trade_id, status, reason
FROM gaps
WHERE exchange = {{exchange:String}} AND symbol = {{symbol:String}}
ORDER BY start_time DESC LIMIT {GAPS_MAX}
"""
_MARKETS = f"""
SELECT k.exchange, k.symbol, s.state, r.rate, f.trade_age_s, toString(m.close), m.coverage,
       toUnixTimestamp64Micro(m.open_time), g.open_gaps, g.lost_gaps
FROM (
    SELECT exchange, symbol FROM status
    UNION DISTINCT SELECT exchange, symbol FROM latest
    UNION DISTINCT SELECT exchange, symbol FROM latest_candles
) AS k
LEFT JOIN freshness AS f USING (exchange, symbol)
LEFT JOIN (SELECT exchange, symbol, toNullable(toString(state)) AS state FROM status) AS s
    USING (exchange, symbol)
LEFT JOIN (
    SELECT exchange, symbol, count() / {RATE_WINDOW_S} AS rate FROM trades_log
    WHERE trade_time > now64(6) - INTERVAL 1 DAY
      AND receive_time > now64(6) - INTERVAL {RATE_WINDOW_S} SECOND
    GROUP BY exchange, symbol
) AS r USING (exchange, symbol)
LEFT JOIN (
    SELECT exchange, symbol, toNullable(open_time) AS open_time, toNullable(close) AS close,
           toNullable(toString(coverage)) AS coverage
    FROM latest_candles WHERE timeframe = '{BASE_TIMEFRAME}'
) AS m USING (exchange, symbol)
LEFT JOIN (
    SELECT exchange, symbol, countIf(status = 'open') AS open_gaps,
           countIf(status = 'unfillable') AS lost_gaps
    FROM gaps GROUP BY exchange, symbol
) AS g USING (exchange, symbol)
ORDER BY k.exchange, k.symbol LIMIT {MARKETS_MAX}
"""


class History:
    """Reads the views of one database over ClickHouse's HTTP interface."""

    def __init__(self, clickhouse: ClickHouseConfig, page: PageConfig, database: str) -> None:
        """Raises: ConfigError for a URL that is none."""
        parts = urlsplit(clickhouse.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"expected an address such as http://127.0.0.1:8123 in [clickhouse] url, found "
                f"{without_password(clickhouse.url)!r}"
            )
        self._url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"
        self._database = database
        user, password = clickhouse.user, clickhouse.password
        if parts.username:
            user, password = unquote(parts.username), unquote(parts.password or "")
        if page.clickhouse_user:
            user, password = page.clickhouse_user, page.clickhouse_password
        self._headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password}
        self._tls = ssl.create_default_context(cafile=clickhouse.tls_ca_file or None)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
            connector=aiohttp.TCPConnector(limit=8, ssl=self._tls),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def candles(self, chart: Chart, count: int, before_us: int | None) -> list[ChartCandle]:
        """Return the candles of the newest windows, or of those before a time, oldest first.

        count: windows, at most so many candles. Without before_us the last one may be open: made
        of the minutes that are closed, where the timeframe is longer than one.
        """
        length_us = chart.timeframe.duration_us
        is_stored = chart.timeframe.name in CANDLES
        if before_us is None:
            source = chart.timeframe if is_stored else _BASE
            newest_us = await self._newest_us(chart, source)
            if newest_us is None:
                return await self._open_window(chart, None)
            end_us = newest_us + source.duration_us
        else:
            end_us = chart.timeframe.open_time_us(before_us)
        # Whole windows: one that began earlier would be made of a part of its minutes.
        start_us = chart.timeframe.open_time_us(end_us - count * length_us)
        rows = await self._windows(_STORED if is_stored else _MADE, chart, start_us, end_us)
        if before_us is None and is_stored:
            rows += await self._open_window(chart, rows[-1] if rows else None)
        return rows[-count:]

    async def gaps(self, chart: Chart) -> list[GapRow]:
        """Return the newest gaps of a market, the newest first."""
        return [
            GapRow(
                start_time_us=int(row[0]),
                end_time_us=int(row[1]),
                first_trade_id=row[2],
                last_trade_id=row[3],
                status=row[4],
                reason=row[5],
            )
            for row in await self._rows(_GAPS, {"exchange": chart.exchange, "symbol": chart.symbol})
        ]

    async def markets(self) -> list[MarketRow]:
        """Return what there is of every symbol, in order of exchange and symbol."""
        return [
            MarketRow(
                exchange=row[0],
                symbol=row[1],
                state=row[2],
                rate=float(row[3] or 0),
                trade_age_s=row[4],
                close=row[5],
                coverage=row[6],
                minute_us=None if row[7] is None else int(row[7]),
                open_gaps=int(row[8]),
                lost_gaps=int(row[9]),
            )
            for row in await self._rows(_MARKETS, {})
        ]

    async def _newest_us(self, chart: Chart, timeframe: Timeframe) -> int | None:
        rows = await self._rows(
            _NEWEST,
            {"exchange": chart.exchange, "symbol": chart.symbol, "timeframe": timeframe.name},
        )
        return int(rows[0][0]) if rows else None

    async def _open_window(self, chart: Chart, last: ChartCandle | None) -> list[ChartCandle]:
        # The window that is not closed yet, as far as its minutes are; the page puts the minutes
        # that come live on top.
        if chart.timeframe.duration_us <= _BASE.duration_us:
            return []
        minute_us = await self._newest_us(chart, _BASE)
        if minute_us is None:
            return []
        open_us = chart.timeframe.open_time_us(minute_us)
        if last is not None and last.open_time_us >= open_us:
            return []
        return await self._windows(_MADE, chart, open_us, minute_us + _BASE.duration_us)

    async def _windows(
        self, query: str, chart: Chart, start_us: int, end_us: int
    ) -> list[ChartCandle]:
        length_us = chart.timeframe.duration_us
        parameters = {
            "exchange": chart.exchange,
            "symbol": chart.symbol,
            "timeframe": chart.timeframe.name,
            "interval_s": str(length_us // SECOND_US),
            "start_us": str(start_us),
            "end_us": str(end_us),
        }
        return [
            ChartCandle(
                timeframe=chart.timeframe.name,
                open_time_us=int(row[0]),
                open=row[1],
                high=row[2],
                low=row[3],
                close=row[4],
                volume=row[5],
                trade_count=None if row[6] is None else int(row[6]),
                coverage=row[7],
                revision=row[8],
                closed=query is _STORED or int(row[0]) + length_us <= end_us,
                until_us=min(int(row[0]) + length_us, end_us),
            )
            for row in await self._rows(query, parameters)
        ]

    async def _rows(self, query: str, parameters: dict[str, str]) -> list[list[Any]]:
        """Return the rows of a query; none while the tables are not made yet.

        Raises: StorageError when ClickHouse is away or refuses.
        """
        assert self._session is not None
        asked = {f"param_{name}": value for name, value in parameters.items()}
        asked |= {"query": query + "FORMAT JSONCompact", "database": self._database}
        try:
            async with self._session.get(self._url, params=asked) as response:
                body = await response.read()
                text = "" if response.status == 200 else body[:2000].decode(errors="replace")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise StorageError(
                f"expected ClickHouse at {self._url}, found {type(error).__name__}: {error}"
            ) from error
        if any(name in text for name in _NOT_YET):
            return []
        if text:
            raise StorageError(f"expected ClickHouse to answer the page, found: {text.strip()}")
        try:
            return msgspec.json.decode(body, type=_Result).data
        except msgspec.DecodeError as error:
            # A failure half way follows the rows.
            raise StorageError(
                f"expected ClickHouse to finish its answer, found {body[-300:]!r}"
            ) from error


class _Result(msgspec.Struct):
    data: list[list[Any]]
