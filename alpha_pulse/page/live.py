"""What the page shows as it happens: events of Kafka, handed to each browser, bounded.

A browser that is slow never makes anybody wait. Its mailbox keeps the newest state of each candle;
where even that is too much, the mailbox is emptied and the browser is told to load anew.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import assert_never

import structlog
from aiokafka.errors import KafkaError as AiokafkaError

from alpha_pulse.contracts.codec import EventDecoder
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import AlphaPulseError, ValidationError
from alpha_pulse.contracts.events import Candle, Gap
from alpha_pulse.contracts.roles.batches import RecordBatch, batch_consumer
from alpha_pulse.contracts.topics import CANDLES, GAPS, OPEN_CANDLES
from alpha_pulse.page.chart import Chart, ChartCandle, GapRow, chart_candle
from alpha_pulse.page.history import BASE_TIMEFRAME

log = structlog.get_logger(__name__)

PENDING_MAX = 500
# Closed candles of each chart that a new browser is given: those that ClickHouse may not have yet.
RECENT_MAX = 5
CHARTS_MAX = 20_000
RETRY_WAIT_S = 1.0
_decode: EventDecoder[Candle | Gap] = EventDecoder(Candle, Gap)

Message = ChartCandle | GapRow
Key = tuple[str, str, int]


class Mailbox:
    """What one browser has not been sent yet: the newest of each candle and gap of its chart."""

    def __init__(self, chart: Chart, pending_max: int = PENDING_MAX) -> None:
        self.chart = chart
        self._pending: dict[Key, Message] = {}
        self._pending_max = pending_max
        self._reload = False
        self._filled = asyncio.Event()

    def put(self, key: Key, message: Message) -> None:
        """Keep the message in place of an older one under its key."""
        self._pending[key] = message
        if len(self._pending) > self._pending_max:
            self.reload()
        self._filled.set()

    def reload(self) -> None:
        """Forget what is pending: the browser has missed something and must load anew."""
        self._pending.clear()
        self._reload = True
        self._filled.set()

    async def take(self) -> tuple[bool, list[Message]]:
        """Return, once there is something, whether to load anew, and what came since."""
        await self._filled.wait()
        self._filled.clear()
        reload, self._reload = self._reload, False
        messages = list(self._pending.values())
        self._pending.clear()
        return reload, messages


class LiveMarket:
    """Follows candles and gaps in Kafka, from now on, committed ones only."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._mailboxes: dict[tuple[str, str], set[Mailbox]] = {}
        # By exchange, symbol and timeframe; the open minute stands under "".
        self._recent: OrderedDict[tuple[str, str, str], dict[int, ChartCandle]] = OrderedDict()
        self.ignored = 0  # records that break the contract, or are of another kind

    def join(self, mailbox: Mailbox) -> None:
        """Hand events of the mailbox's market to it, beginning with what came lately."""
        self._mailboxes.setdefault(mailbox.chart.market, set()).add(mailbox)
        for timeframe in ("", BASE_TIMEFRAME, mailbox.chart.timeframe.name):
            for candle in self._recent.get((*mailbox.chart.market, timeframe), {}).values():
                mailbox.put(_key(candle), candle)

    def leave(self, mailbox: Mailbox) -> None:
        """Hand nothing to the mailbox any more."""
        others = self._mailboxes.get(mailbox.chart.market, set())
        others.discard(mailbox)
        if not others:
            self._mailboxes.pop(mailbox.chart.market, None)

    async def run(self) -> None:
        """Follow for ever; while Kafka is away, try again."""
        while True:
            try:
                await self._follow()
            except (AlphaPulseError, AiokafkaError, OSError) as error:
                log.warning("page.kafka_lost", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(RETRY_WAIT_S)
            # What was published meanwhile is not read again.
            for mailboxes in self._mailboxes.values():
                for mailbox in mailboxes:
                    mailbox.reload()

    async def _follow(self) -> None:
        namespace = self._config.namespace
        open_topic = OPEN_CANDLES.full_name(namespace)
        topics = [topic.full_name(namespace) for topic in (*CANDLES.values(), GAPS)]
        consumer = batch_consumer(
            self._config.kafka,
            "alpha-pulse-page",
            auto_offset_reset="latest",
            fetch_max_wait_ms=200,
        )
        consumer.subscribe([open_topic, *topics])
        try:
            await consumer.start()
            while True:
                for where, batches in (await consumer.getmany(timeout_ms=500)).items():
                    self._take(batches, is_open=where.topic == open_topic)
        finally:
            await consumer.stop()

    def _take(self, batches: Iterable[RecordBatch], *, is_open: bool) -> None:
        for batch in batches:
            for value in batch.values:
                if value is None:
                    continue
                try:
                    event = _decode(value)
                except ValidationError as error:
                    self.ignored += 1
                    if self.ignored == 1:  # one says it: a flood of them would fill the log
                        log.warning("page.record_ignored", error=str(error))
                    continue
                match event:
                    case Candle(job=None):
                        self.put_candle(event, is_open=is_open)
                    case Candle():
                        pass  # history is what ClickHouse shows
                    case Gap():
                        self.put_gap(event)
                    case _:
                        assert_never(event)

    def put_candle(self, candle: Candle, *, is_open: bool) -> None:
        """Remember a candle and hand it to the browsers that show its market and timeframe."""
        shown = chart_candle(candle, closed=not is_open)
        self._remember(candle, shown, "" if is_open else candle.timeframe)
        for mailbox in self._mailboxes.get((candle.exchange, candle.symbol), ()):
            if candle.timeframe in (BASE_TIMEFRAME, mailbox.chart.timeframe.name):
                mailbox.put(_key(shown), shown)

    def put_gap(self, gap: Gap) -> None:
        """Hand a gap to the browsers that show its market."""
        row = GapRow(
            start_time_us=gap.start_time_us,
            end_time_us=gap.end_time_us,
            first_trade_id=gap.first_trade_id,
            last_trade_id=gap.last_trade_id,
            status=gap.status,
            reason=gap.reason,
        )
        for mailbox in self._mailboxes.get((gap.exchange, gap.symbol), ()):
            mailbox.put(("gap", gap.first_trade_id or "", gap.start_time_us), row)

    def _remember(self, candle: Candle, shown: ChartCandle, timeframe: str) -> None:
        chart = (candle.exchange, candle.symbol, timeframe)
        recent = self._recent.setdefault(chart, {})
        self._recent.move_to_end(chart)
        if not shown.closed:
            recent.clear()
        recent[shown.open_time_us] = shown
        while len(recent) > RECENT_MAX:
            del recent[min(recent)]
        while len(self._recent) > CHARTS_MAX:
            self._recent.popitem(last=False)


def _key(candle: ChartCandle) -> Key:
    return ("closed" if candle.closed else "open", candle.timeframe, candle.open_time_us)
