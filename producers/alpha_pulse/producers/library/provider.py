"""`ExchangeDataProvider`: the live producer for programs without Kafka.

The same sockets, continuity checks and healing as the pipeline's; events go to a function of the
program instead of a topic.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from alpha_pulse.contracts.codec import decode_ingest
from alpha_pulse.contracts.config import ProducerConfig, load_config
from alpha_pulse.contracts.errors import DataFetchError, MarketWindow, ValidationError, telling
from alpha_pulse.contracts.interfaces import OnEvents
from alpha_pulse.contracts.market import check_symbol
from alpha_pulse.contracts.topics import INGEST
from alpha_pulse.producers.exchanges.names import exchange_name, with_exchange
from alpha_pulse.producers.exchanges.registry import ExchangeType
from alpha_pulse.producers.live import LiveProducer

# Told at once at most, so that a flood does not hold the event loop.
EVENTS_AT_ONCE_MAX = 1_000
DRAIN_S_MAX = 10.0


class ExchangeDataProvider:
    """Follows symbols of one exchange live; a `Provider`.

    testnet: its data carry the exchange's name with `-testnet`. config: further settings, by
    default those of the environment (`ALPHA_PULSE_EXCHANGE_URL`, …). connect_timeout: seconds that
    the exchange has for its first answer; later losses are healed without end.
    """

    def __init__(
        self,
        exchange: ExchangeType | str = ProducerConfig.exchange,
        testnet: bool = False,
        config: ProducerConfig | None = None,
        *,
        connect_timeout: float = 30.0,
    ) -> None:
        self.config = with_exchange(config or load_config().producer, exchange, testnet=testnet)
        self.exchange = exchange_name(self.config)
        self.connect_timeout = connect_timeout
        self._producer: _Following | None = None
        self._running: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    @property
    def refused(self) -> dict[str, str]:
        """Return the symbols that the exchange refuses by now, and why."""
        return dict(self._producer.quarantined) if self._producer is not None else {}

    @property
    def dead_letters(self) -> int:
        """Return how many bad frames came so far; each is in the log."""
        return self._producer.intake.dead_letters.count if self._producer is not None else 0

    async def start(self, symbols: Sequence[str], on_events: OnEvents) -> None:
        """Follow symbols; return once the exchange has answered and they are being subscribed to.

        Args:
            symbols: unified symbols; doubles are dropped.
            on_events: awaited with each symbol's events, in the order of its log; while it takes
                its time, the exchange is read more slowly.

        Raises:
            ValidationError: one is no symbol, there is none, or the provider runs already.
            DataFetchError: the exchange does not answer in time or refuses a symbol: nothing is
                followed then.
        """
        about = MarketWindow(self.exchange)
        if self._running is not None:
            raise ValidationError(
                "expected a provider that is not running, found it running; call stop() first",
                about,
            )
        with telling(about):
            wanted = tuple(dict.fromkeys(check_symbol(symbol) for symbol in symbols))
        if not wanted:
            raise ValidationError(
                "expected at least one symbol to follow, found none; name one", about
            )
        delivery = _Delivery(on_events, self.config.publish_pending_bytes_max)
        producer = _Following(replace(self.config, symbols=wanted), delivery)
        self._producer = producer
        self._stop = asyncio.Event()
        self._running = asyncio.create_task(self._run(producer, delivery), name="live data")
        try:
            await self._connected(producer)
        except BaseException:
            with suppress(Exception):
                await self.stop()
            raise

    async def set_symbols(self, symbols: Iterable[str]) -> None:
        """Follow exactly these symbols from now on; those that stay are not touched.

        Args:
            symbols: unified symbols.

        Raises:
            ValidationError: one is no symbol, or the provider does not run.
        """
        if self._producer is None or self._running is None:
            raise ValidationError("expected a provider that runs, found one that does not")
        await self._producer.set_symbols([check_symbol(symbol) for symbol in symbols])

    async def wait(self) -> None:
        """Return when the stream has ended by itself (a recording's end); raises what ended it."""
        if self._running is not None:
            await asyncio.shield(self._running)

    async def stop(self) -> None:
        """End it; what was received before has been given to `on_events` then.

        Raises what ended the stream before, if anything did.
        """
        running, self._running = self._running, None
        if running is None:
            return
        self._stop.set()
        await asyncio.wait([running], timeout=DRAIN_S_MAX)
        running.cancel()
        await asyncio.wait([running])
        if running.cancelled():
            raise DataFetchError(
                f"expected the last events to be taken within {DRAIN_S_MAX:.0f} s, found the "
                "program busy; some were received and not delivered",
                MarketWindow(self.exchange),
            )
        running.result()

    async def _run(self, producer: LiveProducer, delivery: "_Delivery") -> None:
        delivering = asyncio.create_task(delivery.run(), name="live data's delivery")
        try:
            await producer.run(self._stop)
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)

    async def _connected(self, producer: "_Following") -> None:
        assert self._running is not None
        followed = asyncio.create_task(producer.followed.wait())
        try:
            await asyncio.wait(
                [followed, self._running],
                timeout=self.connect_timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            followed.cancel()
        if self._running.done():
            self._running.result()
        if not producer.followed.is_set():
            where = self.config.exchange_url or "its own address"
            raise DataFetchError(
                f"expected {self.exchange} to answer at {where} within {self.connect_timeout:g} s, "
                "found no usable answer (each attempt is in the log); check the network, then "
                "start again",
                MarketWindow(self.exchange),
            )
        for symbol, reason in producer.quarantined.items():
            raise DataFetchError(
                f"expected a symbol that {self.exchange} trades, found {symbol!r}: {reason}; start "
                "without it",
                MarketWindow(self.exchange, symbol),
            )


class _Following(LiveProducer):
    # Tells when the symbols have been looked at, so that `start` can answer.
    followed: asyncio.Event

    def __init__(self, config: ProducerConfig, delivery: "_Delivery") -> None:
        super().__init__(config, delivery)
        self.followed = asyncio.Event()

    async def set_symbols(self, symbols: Iterable[str]) -> None:
        await super().set_symbols(symbols)
        self.followed.set()


class _Delivery:
    # Stands where Kafka's publisher stands: bounded, in order, and slow when the program is.
    def __init__(self, on_events: OnEvents, pending_bytes_max: int) -> None:
        self.pending_bytes = 0
        self._on_events = on_events
        self._pending_bytes_max = pending_bytes_max
        self._waiting: deque[list[bytes]] = deque()
        self._changed = asyncio.Condition()
        self._failure: BaseException | None = None

    async def publish(self, topic: str, key: bytes, values: Sequence[bytes]) -> None:
        if topic != INGEST.name:
            return  # dead letters: logged and counted where they come from
        async with self._changed:
            await self._changed.wait_for(self._has_room)
            self._check()
            self.pending_bytes += sum(map(len, values))
            for start in range(0, len(values), EVENTS_AT_ONCE_MAX):
                self._waiting.append(list(values[start : start + EVENTS_AT_ONCE_MAX]))
            self._changed.notify_all()

    async def flush(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure or not self.pending_bytes)
            self._check()

    async def run(self) -> None:
        try:
            while True:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._waiting)
                    values = self._waiting.popleft()
                await self._on_events([decode_ingest(value) for value in values])
                async with self._changed:
                    self.pending_bytes -= sum(map(len, values))
                    self._changed.notify_all()
        except Exception as error:
            async with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._failure is not None or self.pending_bytes <= self._pending_bytes_max

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
