"""Faust's part: agents and tables at candle rate, and their web views.

Every closed 1m candle of ours meets the exchange's own in a table and is published to
`market.audits.v1`; another table keeps the newest of every symbol for `/symbols`. Faust delivers at
least once: an audit that comes twice has the same revision and the same bytes.
"""

from collections.abc import Callable
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

log = structlog.get_logger()

LEDGERS, LATEST = "audit-ledgers", "latest"


def app_name(config: Config) -> str:
    """Return the name of Faust's app, which is its group; without the namespace."""
    return f"{config.processor.group}-faust"


def changelogs(config: Config) -> list[Topic]:
    """Return the topics that Faust keeps its tables in, by the names that it gives them."""
    return [
        Topic(
            f"{app_name(config)}-{table}-changelog",
            (),
            "A table of Faust's; written and read by the audit only.",
            cleanup="compact",
            internal=True,
        )
        for table in (LEDGERS, LATEST)
    ]


class Audits:
    """Follows both candle topics through Faust's tables, and tells how that goes.

    Args:
        app: of `app_name`, so that its tables lie in `changelogs`.
        config: of the role.
        on_audit: called with the result of each audit that is published.
    """

    def __init__(self, app: faust.App, config: Config, on_audit: Callable[[str], None]) -> None:
        def table(name: str) -> Any:
            # Text, not bytes: a changelog value that can't be decoded hangs Faust's recovery.
            return app.Table(
                name, key_type=str, value_type=str, partitions=config.topics.partitions
            )

        self.latest = table(LATEST)
        self._ledgers = table(LEDGERS)
        self._audits = _raw(app, config, AUDITS)
        self._candles_topic = AUDIT_CANDLES.full_name(config.namespace)
        self._on_audit = on_audit
        self._failure = ""

    def problem(self) -> str:
        """Return why the audit is not ready, "" when it is."""
        return f"the audit failed: {self._failure}" if self._failure else ""

    async def run(self, stream: Any) -> None:
        """Follow what Faust delivers, for ever."""
        async for event in stream.events():
            try:
                await self._ingest(event)
            except (ValidationError, UnicodeDecodeError) as error:
                # Our own topics hold nothing that we can't read, but for a newer version's events.
                log.warning(
                    "audit.skipped",
                    topic=event.message.topic,
                    partition=event.message.partition,
                    offset=event.message.offset,
                    error=str(error),
                )
            except Exception as error:
                # Faust starts the agent again; readiness says so until it goes on.
                self._failure = f"{type(error).__name__}: {error}"
                raise
            self._failure = ""

    async def _ingest(self, event: Any) -> None:
        key = event.key.decode()
        if event.message.topic != self._candles_topic:
            status = decode_event(event.value)
            if isinstance(status, StreamStatus):
                self.latest[key] = newest(self.latest.get(key) or "{}", status)
            return
        found = decode_audit_candle(event.value)
        ledger = decode_ledger(self._ledgers.get(key) or "")
        for finding in ledger.add(found.candle, found.side == "exchange"):
            self._on_audit(finding.result)
            # Outputs stay in their input's partition.
            await self._audits.send(
                key=event.key, value=encode(finding), partition=event.message.partition
            )
        self._ledgers[key] = encode_ledger(ledger)
        if found.side == "ours":
            self.latest[key] = newest(self.latest.get(key) or "{}", found.candle)


def add_audits(app: faust.App, config: Config, on_audit: Callable[[str], None]) -> Audits:
    """Give the app its tables, its agent and the page `/symbols`; see `Audits`."""
    audits = Audits(app, config, on_audit)
    # An app needs one agent; without audits nothing comes but the status of each symbol.
    topics = (AUDIT_CANDLES, STATUS) if config.processor.audits else (STATUS,)

    @app.agent(_raw(app, config, *topics), name="audit")  # type: ignore[untyped-decorator]
    async def audit(stream: Any) -> None:
        await audits.run(stream)

    @app.page("/symbols")
    class Symbols(View):  # type: ignore[misc]
        """The newest candle and status of each symbol that this worker holds."""

        async def get(self, request: Request) -> Response:
            latest = audits.latest.items()
            return self.json({key: msgspec.json.decode(text) for key, text in latest})

    return audits


def _raw(app: faust.App, config: Config, *topics: Topic) -> Any:
    return app.topic(
        *(topic.full_name(config.namespace) for topic in topics),
        key_type=bytes,
        key_serializer="raw",
        value_type=bytes,
        value_serializer="raw",
    )


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
