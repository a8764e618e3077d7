"""Faust's part: agents and tables at candle rate, and their web views.

Every closed 1m candle of ours meets the exchange's own in a table and is published to
`market.audits.v1`; another table keeps the newest of every symbol for `/symbols`. Faust delivers at
least once: an audit that comes twice has the same revision and the same bytes.
"""

from typing import Any

import faust
import msgspec
import structlog
from faust.web import Request, Response, View

from alpha_pulse.contracts.codec import decode_event, encode
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Candle, StreamStatus
from alpha_pulse.contracts.topics import AUDIT_CANDLES, AUDITS, STATUS, Topic
from alpha_pulse.processors.audit.ledger import decode_ledger, encode_ledger
from alpha_pulse.processors.wire.audit_candle import decode_audit_candle
from alpha_pulse.processors.worker.metrics import ProcessorMetrics

log = structlog.get_logger()


def add_audits(app: faust.App, config: Config, metrics: ProcessorMetrics) -> None:
    """Give the app its tables, its agent and the page `/symbols`."""

    def raw(*topics: Topic) -> Any:
        return app.topic(
            *(topic.full_name(config.namespace) for topic in topics),
            key_type=bytes,
            key_serializer="raw",
            value_type=bytes,
            value_serializer="raw",
        )

    def table(name: str) -> Any:
        # Text, not bytes: a changelog value that can't be decoded hangs Faust's recovery.
        return app.Table(name, key_type=str, value_type=str, partitions=config.topics.partitions)

    audits = raw(AUDITS)
    ledgers = table("audit-ledgers")
    latest = table("latest")

    candles_topic = AUDIT_CANDLES.full_name(config.namespace)
    # An app needs one agent; without audits nothing comes but the status of each symbol.
    topics = (AUDIT_CANDLES, STATUS) if config.processor.audits else (STATUS,)

    @app.agent(raw(*topics), name="audit")  # type: ignore[untyped-decorator]
    async def audit(stream: Any) -> None:
        async for event in stream.events():
            try:
                key = event.key.decode()
                if event.message.topic != candles_topic:
                    status = decode_event(event.value)
                    if isinstance(status, StreamStatus):
                        latest[key] = newest(latest.get(key) or "{}", status)
                    continue
                found = decode_audit_candle(event.value)
                ledger = decode_ledger(ledgers.get(key) or "")
                for finding in ledger.add(found.candle, found.side == "exchange"):
                    metrics.audits[finding.result] += 1
                    # Outputs stay in their input's partition.
                    await audits.send(
                        key=event.key, value=encode(finding), partition=event.message.partition
                    )
                ledgers[key] = encode_ledger(ledger)
                if found.side == "ours":
                    latest[key] = newest(latest.get(key) or "{}", found.candle)
            except (ValidationError, UnicodeDecodeError) as error:
                # Our own topics hold nothing that we can't read, but for a newer version's events.
                log.warning(
                    "audit.skipped",
                    topic=event.message.topic,
                    partition=event.message.partition,
                    offset=event.message.offset,
                    error=str(error),
                )

    @app.page("/symbols")
    class Symbols(View):  # type: ignore[misc]
        """The newest candle and status of each symbol that this worker holds."""

        async def get(self, request: Request) -> Response:
            return self.json({key: msgspec.json.decode(text) for key, text in latest.items()})


def newest(text: str, event: Candle | StreamStatus) -> str:
    """Return the JSON of a symbol's newest candle and status, with an event taken in."""
    known: dict[str, Any] = msgspec.json.decode(text)
    kind = "candle" if isinstance(event, Candle) else "status"
    before = known.get(kind)
    if isinstance(event, Candle):
        order = (event.open_time_us, event.revision)
        is_newer = before is None or order > (before["open_time_us"], before["revision"])
    else:
        is_newer = before is None or event.revision > before["revision"]
    if is_newer:
        known[kind] = msgspec.to_builtins(event)
    return msgspec.json.encode(known).decode()
