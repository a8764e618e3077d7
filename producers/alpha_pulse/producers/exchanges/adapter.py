"""`Exchange`: all that one exchange does its own way, filled in by its room.

The defaults are those of any exchange of ccxt.pro: without a room an exchange works through ccxt's
own handlers (the generic path).
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.producers.exchanges import generic
from alpha_pulse.producers.exchanges.candles import CandleRequest
from alpha_pulse.producers.exchanges.decoder import FrameDecoder
from alpha_pulse.producers.exchanges.limits import LIMITS_DEFAULT, SocketLimits
from alpha_pulse.producers.exchanges.standing import CCXT_STANDINGS, Standing, ccxt_status
from alpha_pulse.producers.exchanges.tick import SymbolOf
from alpha_pulse.producers.exchanges.trades import Mark, RestClient, Wanted

# Made once for each websocket address, from the name in events and the followed market ids.
MakeDecoder = Callable[[str, SymbolOf], FrameDecoder]
# All of these raise what ccxt raises, or ValidationError when the answer is none. Times: Unix µs.
AskById = Callable[[RestClient, Wanted], Awaitable[list[Trade]]]
AskRecent = Callable[[RestClient, str], Awaitable[list[Trade]]]
AskMarks = Callable[[Any, str, int], Awaitable[list[Mark]]]  # (client, symbol, time_us)
AskCandles = Callable[[CandleRequest, str], Awaitable[list[Candle]]]
AskText = Callable[[Any], Awaitable[str]]  # (client)
AskTime = Callable[[Any, str], Awaitable[int | None]]  # (client, symbol)


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeSource:
    """How an exchange shows trades over REST.

    by_id: returns trades among which are some of the wanted ones, the lowest first, in any order;
    None where trades can't be asked for by id. Raises KeyNeededError where that needs an API key.
    by_id_cost: of such a request in ccxt's units, where it goes past ccxt's own throttle.
    span_us_max: the longest stretch of time that one answer may span, where it holds nothing after
    `until_us` (then an empty one says nothing of later trades); None where an answer begins with
    the first wanted trade, whenever that was.
    recent: returns the last trades, oldest first.
    first_from: returns the first trade that is not before a time.
    newest_before: returns about the newest trades before a time, newest first.
    look_back_us: how far before that time an answer looks; None: as far as there are trades.
    absent_ids: what ids are that a whole answer by id does not show: a reason of `events.Ids`;
    None: their trades are missing.
    """

    by_id: AskById | None = None
    by_id_cost: float | None = None
    span_us_max: int | None = None
    recent: AskRecent = generic.recent_trades
    first_from: AskMarks | None = None
    newest_before: AskMarks | None = None
    look_back_us: int | None = None
    absent_ids: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleSource:
    """How an exchange shows its own candles over REST.

    page_rows: the longest window that one answer holds whole, in candles. No request asks for more,
    so that neither the order of the rows nor which end is cut can matter.
    names: of timeframes, ours to the exchange's; None: those that ccxt lists.
    ask: returns the closed candles of a window, in any order.
    newest_rows: the exchange shows only so many of the newest candles; None: all of them.
    empty_left_out: a window without trades has no candle, so that a missing one proves no halt.
    ask_recent: as `ask`, for minutes that ended a moment ago; others may be among them.
    listed_from_us: returns when a symbol's first candle opens; None where nothing tells.
    """

    page_rows: int = generic.CANDLES_PAGE
    names: Mapping[str, str] | None = None
    ask: AskCandles = generic.candles
    newest_rows: int | None = None
    empty_left_out: bool = True
    ask_recent: AskCandles = generic.recent_candles
    listed_from_us: AskTime | None = None

    def timeframes(self, client: Any) -> Mapping[str, str]:
        """Return the exchange's names of the timeframes that it has candles of.

        Args:
            client: a ccxt.pro exchange.
        """
        if self.names is not None:
            return self.names
        return dict.fromkeys(client.timeframes or {}, "") if client.has.get("fetchOHLCV") else {}


def market_id(symbol: str, market: Mapping[str, Any]) -> str:
    """Return what frames call a symbol: the exchange's market id, as in its list of markets."""
    del symbol
    return str(market["id"])


def every_one(market: Mapping[str, Any]) -> str | None:
    """Return that any market may be followed."""
    del market
    return None


def every_market(url: str, market: Mapping[str, Any]) -> bool:
    """Return that frames of any address may speak of a market."""
    del url, market
    return True


@dataclass(frozen=True, kw_only=True, eq=False)
class Exchange:
    """One exchange. `id` is ccxt's; everything else has a default that suits any.

    decoder: makes a decoder of raw frames; None: ccxt decodes them.
    ids_are_consecutive: the exchange numbers a symbol's trades without holes, so that ids prove
    what is missing. Only recordings prove that they are.
    ccxt_options: `options` of ccxt's exchange.
    client_mixins: classes that change how ccxt's exchange speaks, before ccxt's own.
    frame_name: what frames call a symbol, from (symbol, ccxt's market).
    carries: whether frames of an address (url, ccxt's market) may speak of a market, where two
    markets share an id.
    status: the exchange's own word for where a market (ccxt's) stands.
    standings: what that word means; for any other word ccxt's `active` decides.
    unfollowed: why a market (ccxt's) can't be followed although it trades, and what to follow
    instead; None where it can.
    maintenance: asks over REST what the exchange says of a maintenance of all that it trades, which
    goes on now; "": there is none. None: there is nothing to ask.
    symbols_per_subscribe: how many go into one message; where one refused symbol takes its message
    with it: 1.
    limits: what the exchange documents for websockets.
    request_interval_ms: between two REST requests, where ccxt is slower than the exchange allows.
    """

    id: str
    decoder: MakeDecoder | None = None
    ids_are_consecutive: bool = False
    ccxt_options: Mapping[str, Any] = field(default_factory=dict)
    client_mixins: tuple[type, ...] = ()
    frame_name: Callable[[str, Mapping[str, Any]], str] = market_id
    carries: Callable[[str, Mapping[str, Any]], bool] = every_market
    status: Callable[[Mapping[str, Any]], str] = ccxt_status
    standings: Mapping[str, Standing] = field(default_factory=lambda: CCXT_STANDINGS)
    unfollowed: Callable[[Mapping[str, Any]], str | None] = every_one
    maintenance: AskText | None = None
    symbols_per_subscribe: int = 1
    limits: SocketLimits = LIMITS_DEFAULT
    request_interval_ms: float | None = None
    trades: TradeSource = TradeSource()
    candles: CandleSource = CandleSource()

    def standing(self, market: Mapping[str, Any]) -> tuple[Standing, str]:
        """Return where a market stands by the exchange's list, and the exchange's word for it.

        Args:
            market: ccxt's market.
        """
        status = self.status(market)
        found = self.standings.get(status) or CCXT_STANDINGS[ccxt_status(market)]
        return found, status
