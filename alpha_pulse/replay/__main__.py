"""The replay exchange as a process of its own.

    python -m alpha_pulse.replay DIR
    python -m alpha_pulse.replay --synthetic BTC/USDT,ETH/USDT --seed 1

Prints one line of JSON when it is ready ({"url", "dialect", "symbols", "end_us", "pid"}) and runs
until its standard input ends, its parent dies, or it is told to stop.
"""

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import orjson

from alpha_pulse.contracts.errors import AlphaPulseError, ConfigError
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.replay.dialects import DIALECT_DEFAULT, DIALECTS
from alpha_pulse.replay.dialects.base import Options
from alpha_pulse.replay.exchange.faults import FaultPlan, random_rest_plan, seeded_plan
from alpha_pulse.replay.exchange.server import CANDLE_INTERVAL_US, ReplayExchange
from alpha_pulse.replay.markets.long_market import LongMarket
from alpha_pulse.replay.markets.market import Market
from alpha_pulse.replay.markets.no_trades import WithNoTrades
from alpha_pulse.replay.markets.recorded import LoopedMarket, RecordedMarket
from alpha_pulse.replay.markets.recording import Recording, load_recording
from alpha_pulse.replay.markets.synthetic import BEGIN_US, TRADES_PER_MINUTE, SyntheticMarket

EXIT_BAD_INPUT = 2
PR_SET_PDEATHSIG = 1
# Random faults are scripted for the first so many REST requests.
REQUESTS_FAULTY = 100_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the exchange; return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        exchange = build(arguments)
    except (AlphaPulseError, ValueError) as e:
        print(e, file=sys.stderr)
        return EXIT_BAD_INPUT
    _die_with_parent()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(exchange, follow_stdin=not arguments.keep_running))
    except OSError as e:
        print(e, file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def build(arguments: argparse.Namespace) -> ReplayExchange:
    """Return the exchange that the arguments describe."""
    pace = arguments.speed or ("1.0" if arguments.synthetic else "full")
    speed = None if pace == "full" else float(pace)
    live = False
    markets: list[Market]
    if arguments.long:
        markets = _long(arguments)
        exchange = DIALECT_DEFAULT
    elif arguments.synthetic:
        live = arguments.minutes is None and speed is not None
        markets = _synthetic(arguments)
        exchange = DIALECT_DEFAULT
    else:
        if arguments.recording is None:
            raise ConfigError("expected a recording folder or --synthetic, found neither")
        recording = _placed(load_recording(arguments.recording), arguments)
        markets = [LoopedMarket(recording) if arguments.loop else RecordedMarket(recording)]
        exchange = recording.exchange
    dialect = arguments.dialect or (exchange if exchange in DIALECTS else DIALECT_DEFAULT)
    return ReplayExchange(
        markets,
        dialect=dialect,
        live=live,
        speed=speed,
        wait_for=[kind for kind in arguments.wait_for.split(",") if kind],
        candle_interval_us=arguments.candle_interval_ms * 1_000,
        faults=_faults(arguments, markets),
        options=Options(
            keyless_history=not arguments.key_required,
            refused=frozenset(s for s in arguments.refuse.split(",") if s),
            weight_per_minute_max=arguments.weight_limit,
            limits_scale=None if arguments.no_limits else 1.0,
        ),
        at_end=arguments.at_end,
        port=arguments.port,
    )


def _synthetic(arguments: argparse.Namespace) -> list[Market]:
    begin_us = _begin_us(arguments)
    end_us = None if arguments.minutes is None else begin_us + arguments.minutes * MINUTE_US
    markets: list[Market] = [
        SyntheticMarket(
            symbol.strip(),
            arguments.seed,
            begin_us=begin_us,
            end_us=end_us,
            trades_per_minute=arguments.trades_per_minute,
        )
        for symbol in arguments.synthetic.split(",")
        if symbol.strip()
    ]
    every = arguments.no_trades_every
    return [WithNoTrades(market, every=every) for market in markets] if every else markets


def _long(arguments: argparse.Namespace) -> list[Market]:
    if arguments.minutes is None:
        raise ConfigError("expected --minutes with --long, found none")
    begin_us = _begin_us(arguments)
    halts = []
    for text in filter(None, arguments.halt.split(",")):
        first, _, count = text.partition("+")
        start_us = begin_us + int(first) * MINUTE_US
        halts.append((start_us, start_us + int(count) * MINUTE_US))
    return [
        LongMarket(
            symbol.strip(),
            arguments.seed,
            begin_us=begin_us,
            end_us=begin_us + arguments.minutes * MINUTE_US,
            halts=halts,
        )
        for symbol in arguments.long.split(",")
        if symbol.strip()
    ]


def _begin_us(arguments: argparse.Namespace) -> int:
    if not arguments.begin:
        return BEGIN_US
    moment = datetime.fromisoformat(arguments.begin)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000 // MINUTE_US * MINUTE_US


def _placed(recording: Recording, arguments: argparse.Namespace) -> Recording:
    if not arguments.shift_to_now:
        return recording
    by_us = int(datetime.now(UTC).timestamp() * 1e6) - recording.begin_us
    return recording.shifted(by_us // MINUTE_US * MINUTE_US)


def _faults(arguments: argparse.Namespace, markets: Sequence[Market]) -> FaultPlan:
    kinds = [kind for kind in (arguments.faults or "").split(",") if kind]
    if kinds and arguments.rest_fault_share:
        return random_rest_plan(kinds, arguments.seed, arguments.rest_fault_share, REQUESTS_FAULTY)
    if not kinds:
        return FaultPlan()
    trades = sum(
        100_000 if market.end_us is None else market.position_at(market.end_us)
        for market in markets
    )
    return seeded_plan(kinds, arguments.seed, trades)


async def _serve(exchange: ReplayExchange, *, follow_stdin: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with exchange:
        ready = {
            "url": exchange.url,
            "dialect": exchange.dialect.name,
            "symbols": [feed.symbol for feed in exchange.feeds],
            "end_us": exchange.end_us,
            "pid": os.getpid(),
        }
        print(orjson.dumps(ready).decode(), flush=True)
        if follow_stdin:
            _stop_with_stdin(loop, stop)
        await stop.wait()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    # Faster where it is installed; nothing depends on it.
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _stop_with_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    def read() -> None:
        try:
            ended = not os.read(sys.stdin.fileno(), 4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            ended = True
        if ended:
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

    # A regular file or /dev/null cannot be waited for; then the parent's death is the signal.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        loop.add_reader(sys.stdin.fileno(), read)


def _die_with_parent() -> None:
    if sys.platform != "linux":
        return
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alpha_pulse.replay",
        description="A local exchange that speaks the exchanges' own protocols.",
    )
    parser.add_argument("recording", nargs="?", help="a recording folder")
    parser.add_argument("--synthetic", metavar="SYMBOLS", help="symbols, comma separated")
    parser.add_argument("--long", metavar="SYMBOLS", help="years of history, for backfills")
    parser.add_argument(
        "--halt", default="", help="minutes without a market, such as 1000+120, with --long"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    parser.add_argument("--dialect", choices=sorted(DIALECTS))
    parser.add_argument(
        "--speed", help="'full' or a factor of the recorded pace (default: full; synthetic: 1.0)"
    )
    parser.add_argument("--loop", action="store_true", help="repeat the recording without end")
    parser.add_argument("--shift-to-now", action="store_true", help="as if it happened now")
    parser.add_argument("--at-end", action="store_true", help="everything has happened already")
    parser.add_argument("--begin", help="when a synthetic market begins (ISO time, UTC)")
    parser.add_argument("--minutes", type=int, help="when a synthetic market ends")
    parser.add_argument("--trades-per-minute", type=int, default=TRADES_PER_MINUTE)
    parser.add_argument(
        "--no-trades-every",
        type=int,
        default=0,
        metavar="TRADES",
        help="give some of a synthetic market's ids to no trade, as perpetuals do; 250: 0.4 %%",
    )
    parser.add_argument(
        "--wait-for",
        default="trades,candles",
        help="subscriptions that the stream waits for; empty: none",
    )
    parser.add_argument("--candle-interval-ms", type=int, default=CANDLE_INTERVAL_US // 1_000)
    parser.add_argument("--faults", help="kinds of fault, comma separated")
    parser.add_argument(
        "--rest-fault-share", type=float, default=0.0, help="of REST requests, with --faults"
    )
    parser.add_argument("--key-required", action="store_true", help="refuse keyless history")
    parser.add_argument("--refuse", default="", help="symbols that the websocket refuses")
    parser.add_argument("--weight-limit", type=int, help="REST weight a minute before 429")
    parser.add_argument(
        "--no-limits", action="store_true", help="websockets may do what no exchange allows"
    )
    parser.add_argument(
        "--keep-running", action="store_true", help="do not stop when standard input ends"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
