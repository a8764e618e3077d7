"""How each exchange is asked for its own candles, and what its rows mean.

Each exchange pages in its own way: Binance and Bybit include both ends, OKX excludes both, Coinbase
leaves out candles without trades, Kraken ignores what is asked and shows its last 720. So one
request never asks for a longer window than the exchange answers whole; then neither the order of
the rows nor which end is cut can matter. Source: the exchanges' REST references.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from alpha_pulse.contracts.decimals import AMOUNT, SUM
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.market import Timeframe
from alpha_pulse.producers.exchanges.frame import FrameError, positive_text, sum_text, time_us

# Four prices and three volumes as the contract wants them, in one look instead of seven.
_PLAIN = re.compile(" ".join([AMOUNT.part] * 4 + [f"(?:{SUM.part}|None)"] * 3)).fullmatch

# What a generic exchange is asked for at once; where it answers with fewer it is asked on.
GENERIC_PAGE_ROWS = 300


@dataclass(frozen=True, slots=True)
class Asking:
    """One request for candles that open within `[start_us, end_us)`."""

    exchange: str
    client: Any
    symbol: str
    timeframe: Timeframe
    start_us: int
    end_us: int

    @property
    def market(self) -> Any:
        """The exchange's own entry of the symbol."""
        return self.client.market(self.symbol)

    def candle(
        self,
        open_time_us: int,
        prices: tuple[str, str, str, str],
        volume: str,
        quote_volume: str | None = None,
        buy_volume: str | None = None,
        trade_count: int | None = None,
    ) -> Candle:
        """Return a row as a candle; raises FrameError when it is none."""
        open_, high, low, close = prices
        if not _PLAIN(f"{open_} {high} {low} {close} {volume} {quote_volume} {buy_volume}"):
            # The exchange's own digits are kept wherever they are plain.
            open_, high, low, close = map(positive_text, prices)
            volume = sum_text(volume)
            quote_volume = None if quote_volume is None else sum_text(quote_volume)
            buy_volume = None if buy_volume is None else sum_text(buy_volume)
        if not self.timeframe.is_open_time(time_us(open_time_us)):
            raise FrameError(f"expected an aligned open time, found {open_time_us}", "bad_candle")
        if not _ordered(open_, high, low, close):
            raise FrameError(
                f"expected 0 < low <= open, close <= high, found {prices} at {open_time_us}",
                "bad_candle",
            )
        return Candle(
            exchange=self.exchange,
            symbol=self.symbol,
            timeframe=self.timeframe.name,
            open_time_us=open_time_us,
            open=open_,
            high=high,
            low=low,
            close=close,
            volume=volume,
            quote_volume=quote_volume,
            buy_volume=buy_volume,
            trade_count=trade_count,
            first_trade_id=None,
            last_trade_id=None,
            revision=0,
            source="exchange",
            coverage="exchange",
        )


@dataclass(frozen=True, slots=True)
class CandleSource:
    """One exchange's way: rows of a page, names of timeframes, the request.

    newest_rows: the exchange shows only so many of the newest candles; None: all of them.
    empty_left_out: a window without trades has no candle, so that a missing one proves no halt.
    """

    page_rows: int
    names: dict[str, str]
    ask: Callable[[Asking, str], Awaitable[list[Candle]]]
    newest_rows: int | None = None
    empty_left_out: bool = False


def candle_source(client: Any) -> CandleSource:
    """Return the exchange's way of serving candles; ccxt's own where we have none."""
    known = _SOURCES.get(client.id)
    if known is not None:
        return known
    names = dict.fromkeys(client.timeframes or {}, "") if client.has.get("fetchOHLCV") else {}
    return CandleSource(GENERIC_PAGE_ROWS, names, _generic, empty_left_out=True)


def _ordered(open_: str, high: str, low: str, close: str) -> bool:
    o, h, l_, c = Decimal(open_), Decimal(high), Decimal(low), Decimal(close)
    return 0 < l_ <= o <= h and l_ <= c <= h


# [open time, open, high, low, close, volume, close time, quote volume, trades, taker buy base
#  volume, taker buy quote volume, "0"]
_BinanceRow = tuple[int, str, str, str, str, str, int, str, int, str, str, str]


async def _binance(asking: Asking, name: str) -> list[Candle]:
    client, market = asking.client, asking.market
    ask = client.fapiPublicGetKlines if market["contract"] else client.publicGetKlines
    rows = await ask(
        {
            "symbol": market["id"],
            "interval": name,
            "startTime": asking.start_us // 1000,
            "endTime": asking.end_us // 1000 - 1,
            "limit": _SOURCES[client.id].page_rows,
        }
    )
    return [
        asking.candle(row[0] * 1000, row[1:5], row[5], row[7], row[9], row[8])
        for row in msgspec.convert(rows, list[_BinanceRow])
    ]


# [time in s, open, high, low, close, vwap, volume, count]
_KrakenRow = tuple[int, str, str, str, str, str, str, int]


async def _kraken(asking: Asking, name: str) -> list[Candle]:
    # {"error":[],"result":{"XXBTZUSD":[[1688671200,"30306.1","30306.2","30305.7","30305.7",
    #  "30306.1","3.39243896",23]],"last":1688672160}}; `since` excludes its own candle.
    since_us = asking.start_us - asking.timeframe.duration_us
    request = {
        "pair": asking.market["id"],
        "interval": name,
        "since": max(0, since_us // 1_000_000),
    }
    answer = msgspec.convert(await asking.client.publicGetOHLC(request), dict[str, Any])
    result = msgspec.convert(answer.get("result"), dict[str, Any])
    rows = [value for key, value in result.items() if key != "last"]
    if not rows:
        raise FrameError(f"expected candles in the answer, found {list(result)}", "bad_frame")
    return [
        asking.candle(row[0] * 1_000_000, row[1:5], row[6], trade_count=row[7])
        for row in msgspec.convert(rows[0], list[_KrakenRow])
    ]


# [ts, open, high, low, close, volume, volume in quote or base, quote volume, "1" when closed]
_OkxRow = tuple[str, str, str, str, str, str, str, str, str]


async def _okx(asking: Asking, name: str) -> list[Candle]:
    market = asking.market
    answer = await asking.client.publicGetMarketHistoryCandles(
        {
            "instId": market["id"],
            "bar": name,
            "before": str(asking.start_us // 1000 - 1),
            "after": str(asking.end_us // 1000),
            "limit": str(_SOURCES["okx"].page_rows),
        }
    )
    rows = msgspec.convert(msgspec.convert(answer, dict[str, Any]).get("data"), list[_OkxRow])
    # Derivatives count contracts first; the base currency comes second.
    volume = 6 if market["contract"] else 5
    return [
        asking.candle(int(row[0]) * 1000, row[1:5], row[volume], row[7])
        for row in rows
        if row[8] == "1"
    ]


# [start, open, high, low, close, volume, turnover]
_BybitRow = tuple[str, str, str, str, str, str, str]


async def _bybit(asking: Asking, name: str) -> list[Candle]:
    market = asking.market
    category = "spot" if market["spot"] else "linear" if market["linear"] else "inverse"
    answer = await asking.client.publicGetV5MarketKline(
        {
            "category": category,
            "symbol": market["id"],
            "interval": name,
            "start": asking.start_us // 1000,
            "end": asking.end_us // 1000 - 1,
            "limit": _SOURCES["bybit"].page_rows,
        }
    )
    result = msgspec.convert(msgspec.convert(answer, dict[str, Any]).get("result"), dict[str, Any])
    return [
        asking.candle(int(row[0]) * 1000, row[1:5], row[5], row[6])
        for row in msgspec.convert(result.get("list"), list[_BybitRow])
    ]


class _CoinbaseRow(msgspec.Struct):
    start: str
    open: str
    high: str
    low: str
    close: str
    volume: str


async def _coinbase(asking: Asking, name: str) -> list[Candle]:
    answer = await asking.client.v3PublicGetBrokerageMarketProductsProductIdCandles(
        {
            "product_id": asking.market["id"],
            "granularity": name,
            "start": asking.start_us // 1_000_000,
            # Both ends count.
            "end": asking.end_us // 1_000_000 - 1,
            "limit": _SOURCES["coinbase"].page_rows,
        }
    )
    rows = msgspec.convert(answer, dict[str, Any]).get("candles")
    return [
        asking.candle(int(row.start) * 1_000_000, (row.open, row.high, row.low, row.close),
                      row.volume)
        for row in msgspec.convert(rows, list[_CoinbaseRow])
    ]  # fmt: skip


async def _generic(asking: Asking, name: str) -> list[Candle]:
    rows = await asking.client.fetch_ohlcv(
        asking.symbol,
        asking.timeframe.name,
        asking.start_us // 1000,
        min(GENERIC_PAGE_ROWS, (asking.end_us - asking.start_us) // asking.timeframe.duration_us),
    )
    kind = tuple[int, str, str, str, str, str]
    return [
        asking.candle(row[0] * 1000, row[1:5], row[5])
        for row in msgspec.convert(rows, list[kind], strict=False)
    ]


_BINANCE_NAMES = {
    name: name
    for name in ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d", "1w")
}
_SOURCES: dict[str, CandleSource] = {
    "binance": CandleSource(1_000, _BINANCE_NAMES | {"1s": "1s"}, _binance),
    # Up to 499 rows weigh 2, 1,000 weigh 5: this brings most rows for the weight.
    "binanceusdm": CandleSource(499, _BINANCE_NAMES, _binance),
    "kraken": CandleSource(
        720,
        {
            "1m": "1",
            "5m": "5",
            "15m": "15",
            "30m": "30",
            "1h": "60",
            "4h": "240",
            "1d": "1440",
        },
        _kraken,
        newest_rows=720,
    ),
    # Without "utc" OKX's days begin at midnight in Hong Kong.
    "okx": CandleSource(
        300,
        {name: name for name in ("1m", "3m", "5m", "15m", "30m")}
        | {"1h": "1H", "2h": "2H", "4h": "4H", "6h": "6Hutc", "12h": "12Hutc"}
        | {"1d": "1Dutc", "1w": "1Wutc"},
        _okx,
    ),
    "bybit": CandleSource(
        1_000,
        {"1m": "1", "3m": "3", "5m": "5", "15m": "15", "30m": "30", "1h": "60", "2h": "120"}
        | {"4h": "240", "6h": "360", "12h": "720", "1d": "D", "1w": "W"},
        _bybit,
    ),
    "coinbase": CandleSource(
        350,
        {
            "1m": "ONE_MINUTE",
            "5m": "FIVE_MINUTE",
            "15m": "FIFTEEN_MINUTE",
            "30m": "THIRTY_MINUTE",
            "1h": "ONE_HOUR",
            "2h": "TWO_HOUR",
            "4h": "FOUR_HOUR",
            "6h": "SIX_HOUR",
            "1d": "ONE_DAY",
        },
        _coinbase,
        empty_left_out=True,
    ),
}
