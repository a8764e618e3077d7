"""Coinbase Advanced Trade: channel market_trades; there are no candle frames of one minute.

Ids are consecutive per product; one frame may hold several products, newest trade first:
    {"channel":"market_trades","client_id":"","timestamp":"2026-04-07T14:30:02.789012Z",
     "sequence_num":5,"events":[{"type":"update","trades":[{"trade_id":"995098700",
     "product_id":"BTC-USD","price":"68900.50","size":"0.00150000","side":"BUY",
     "time":"2026-04-07T14:30:02.789012Z"}]}]}

An error names the product, if any; ccxt's receive loop dies of it. A product that is none:
    {"type":"error","message":"NOPE-USD is not a valid product"}

The same in the words of Coinbase's other feed:
    {"type":"error","message":"Failed to subscribe","reason":"NOPE-USD is not a valid product"}

More than 8 messages a second from one address; the text is not documented, so its words count:
    {"type":"error","message":"rate limit exceeded"}

Source of these: Coinbase's references "Advanced Trade WebSocket" and "Exchange WebSocket".

Coinbase has one book for BTC-USD and BTC-USDC: `alias` of the product BTC-USDC is BTC-USD. Trades
of both come as BTC-USD, and are the same trades. So BTC/USDC is refused with the advice to follow
BTC/USD: a trade is in the log once, under the one symbol that the frames name, whichever of the two
are followed, and sums over symbols don't count it twice.

Over REST: `ticker` shows the newest trades of a range of seconds, `candles` include both ends and
leave out minutes without trades. Source: Coinbase Advanced Trade's reference, "Products".
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from alpha_pulse.contracts.events import Candle, Side, Trade
from alpha_pulse.contracts.market import DAY_US, SECOND_US
from alpha_pulse.producers.exchanges.adapter import (
    CandleSource,
    Exchange,
    TradeSource,
)
from alpha_pulse.producers.exchanges.candles import CandleRequest
from alpha_pulse.producers.exchanges.decoder import FrameDecoder
from alpha_pulse.producers.exchanges.limits import Rate, SocketLimits
from alpha_pulse.producers.exchanges.numbers import ISO_TIMES, iso_time_us, number_id
from alpha_pulse.producers.exchanges.standing import Standing, ccxt_status
from alpha_pulse.producers.exchanges.tick import (
    Tick,
    decoded,
    unsubscribed,
)
from alpha_pulse.producers.exchanges.trades import TRADES_PAGE, Mark, RestClient, Wanted


class _Kind(msgspec.Struct, gc=False):
    channel: str | None = None
    type: str | None = None
    message: str = ""
    reason: str = ""


class _TradeRow(msgspec.Struct, gc=False, rename={"market": "product_id", "amount": "size"}):
    trade_id: str
    market: str
    price: str
    amount: str
    side: Literal["BUY", "SELL"]
    time: str


class _Event(msgspec.Struct, gc=False):
    trades: list[_TradeRow]


def _by_number(row: _TradeRow) -> tuple[int, str]:
    return len(row.trade_id), row.trade_id


class _TradeFrame(msgspec.Struct, gc=False):
    events: list[_Event]

    @property
    def data(self) -> list[_TradeRow]:
        """Its trades by id."""
        events = self.events
        if len(events) == 1:
            rows = events[0].trades
        else:
            rows = [row for event in events for row in event.trades]
        if len(rows) > 1:
            rows.sort(key=_by_number)
        return rows


# Coinbase names the maker's side.
_TAKER_SIDES: Mapping[str, Side] = {"BUY": "sell", "SELL": "buy"}
_decode_kind = msgspec.json.Decoder(_Kind).decode
_WORDS = re.compile(r"[\s,;:'\"\[\]()]+")


class CoinbaseDecoder(FrameDecoder):
    """Decodes the frames of one address; see `FrameDecoder`."""

    hot = '{"channel":"market_trades",'
    decode_trades = msgspec.json.Decoder(_TradeFrame).decode
    sides = _TAKER_SIDES
    times = ISO_TIMES

    def __call__(self, frame: str, receive_time_us: int) -> list[Tick] | None:
        """Return the trades of a market_trades frame by id, None for any other frame."""
        if frame.startswith(self.hot):
            return self._trades(frame, receive_time_us)
        kind = decoded(_decode_kind, frame, self._exchange)
        if kind.type == "error":
            reason = f"{kind.message} {kind.reason}".strip()
            named = [name for name in self._symbols if name in _WORDS.split(reason)]
            return unsubscribed(self._symbols, named or [""], reason)
        if kind.channel != "market_trades":
            return None
        return self._trades(frame, receive_time_us)


class _RestTradeRow(msgspec.Struct):
    trade_id: str
    price: str
    size: str
    time: str
    side: str


class _RestCandleRow(msgspec.Struct):
    start: str
    open: str
    high: str
    low: str
    close: str
    volume: str


CANDLES_PAGE = 350
# A product's flag that is set, else its `status`. Without market orders or without takers nothing
# or little is traded. Source: Coinbase Advanced Trade's reference, "List public products".
STANDINGS = {
    "online": Standing.TRADING,
    "limit_only": Standing.TRADING,
    "post_only": Standing.HALTED,
    "cancel_only": Standing.HALTED,
    "auction_mode": Standing.HALTED,
    "trading_disabled": Standing.HALTED,
    "is_disabled": Standing.HALTED,
    "offline": Standing.HALTED,
    "delisted": Standing.ENDED,
}
_FLAGS = ("is_disabled", "trading_disabled", "cancel_only", "post_only", "auction_mode")
# Pages of `ticker` for one wanted id, going back from the newest.
PAGES_MAX = 20
# `ticker` of a longer stretch is not asked for at once.
SPAN_US_MAX = 7 * DAY_US
LOOK_BACK_US = SPAN_US_MAX


def _status(market: Mapping[str, Any]) -> str:
    row = market["info"]
    flags = [] if row.get("status") == "delisted" else [f for f in _FLAGS if row.get(f) is True]
    return flags[0] if flags else str(row.get("status") or ccxt_status(market))


def _unfollowed(market: Mapping[str, Any]) -> str | None:
    book = market["info"].get("alias")
    if not book or book == market["id"]:
        return None
    symbol = str(book).replace("-", "/")
    return f"its trades are those of {symbol}, with which it shares a book: follow {symbol}"


async def _ticker(client: Any, request: dict[str, Any]) -> Any:
    answer = await client.v3PublicGetBrokerageMarketProductsProductIdTicker(request)
    return msgspec.convert(answer, dict[str, Any]).get("trades")


async def _trades_by_id(rest: RestClient, wanted: Wanted) -> list[Trade]:
    # The newest of a range of seconds come: page back until the first wanted id is there.
    request = {"product_id": rest.client.market_id(wanted.symbol), "limit": TRADES_PAGE}
    request["start"] = wanted.since_us // SECOND_US
    if wanted.until_us is not None:
        request["end"] = wanted.until_us // SECOND_US + 1
    found: dict[int, Trade] = {}
    for _ in range(PAGES_MAX):
        before = len(found)
        page = rest.read(
            wanted.symbol,
            await _ticker(rest.client, request),
            _RestTradeRow,
            lambda row: rest.trade(
                wanted.symbol,
                number_id(row.trade_id),
                row.price,
                row.size,
                _TAKER_SIDES.get(row.side, "buy"),
                iso_time_us(row.time),
            ),
        )
        found.update((int(trade.trade_id), trade) for trade in page)
        if len(found) == before or min(found) <= wanted.first_id:
            break
        earliest_us = min(trade.trade_time_us for trade in found.values())
        request["end"] = earliest_us // SECOND_US + 1
    return list(found.values())


async def _newest_trades_before(client: Any, symbol: str, before_us: int) -> list[Mark]:
    request = {
        "product_id": client.market_id(symbol),
        "limit": TRADES_PAGE,
        "start": max(0, before_us - LOOK_BACK_US) // SECOND_US,
        # The second that holds the time belongs to the answer.
        "end": before_us // SECOND_US + 1,
    }
    return [
        Mark(int(number_id(row.trade_id)), iso_time_us(row.time))
        for row in msgspec.convert(await _ticker(client, request), list[_RestTradeRow])
    ]


async def _candles(request: CandleRequest, name: str) -> list[Candle]:
    answer = await request.client.v3PublicGetBrokerageMarketProductsProductIdCandles(
        {
            "product_id": request.market["id"],
            "granularity": name,
            "start": request.start_us // SECOND_US,
            # Both ends count.
            "end": request.end_us // SECOND_US - 1,
            "limit": CANDLES_PAGE,
        }
    )
    return request.read(
        msgspec.convert(answer, dict[str, Any]).get("candles"),
        _RestCandleRow,
        lambda row: request.candle(
            int(row.start) * SECOND_US, (row.open, row.high, row.low, row.close), row.volume
        ),
    )


EXCHANGE = Exchange(
    id="coinbase",
    decoder=CoinbaseDecoder,
    ids_are_consecutive=True,
    # Source: Coinbase, "Advanced Trade WebSocket Rate Limits": both of an address. All
    # goes over one connection.
    limits=SocketLimits(dials=Rate(8, 1.0), messages=Rate(8, 1.0)),
    status=_status,
    standings=STANDINGS,
    unfollowed=_unfollowed,
    trades=TradeSource(
        by_id=_trades_by_id,
        span_us_max=SPAN_US_MAX,
        newest_before=_newest_trades_before,
        look_back_us=LOOK_BACK_US,
    ),
    candles=CandleSource(
        page_rows=CANDLES_PAGE,
        names={
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
        ask=_candles,
    ),
)
