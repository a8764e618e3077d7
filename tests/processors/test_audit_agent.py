"""The audit in Faust's hands: its topics are there before Faust is, and readiness sees it fail."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import Config, KafkaConfig
from alpha_pulse.contracts.events import StreamStatus
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.processors.app import create_app
from alpha_pulse.processors.audit.agent import Audits, changelogs

PARTITIONS = 3


async def test_the_tables_topics_are_made_before_faust_starts(
    runtime: Runtime, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Faust makes them itself, but asks how many partitions they have before Kafka knows it: the
    # agent crashed for minutes at every first start of a single worker.
    config = Config(
        namespace=namespace, data_dir=str(tmp_path), kafka=KafkaConfig(bootstrap=runtime.kafka)
    )
    config = replace(config, topics=replace(config.topics, partitions=PARTITIONS))
    found: dict[str, int] = {}

    async def on_first_start(app: Any) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=runtime.kafka)
        await admin.start()
        try:
            for topic in await admin.describe_topics(names):
                found[topic["topic"]] = len(topic["partitions"])
        finally:
            await admin.close()

    monkeypatch.setattr(faust.App, "on_first_start", on_first_start)
    app = create_app(config)
    names = [table.changelog_topic_name for table in app.tables.values()]
    await app.on_first_start()
    await app.role_pages.aclose()
    assert found == dict.fromkeys(names, PARTITIONS)
    assert sorted(names) == sorted(t.full_name(namespace) for t in changelogs(config))
    assert all(topic.cleanup == "compact" for topic in changelogs(config))


class Table(dict[str, str]):
    """A table that may refuse to be written, as Faust's does without partitions."""

    is_broken = True

    def __setitem__(self, key: str, value: str) -> None:
        if self.is_broken:
            raise RuntimeError("no partitions")
        super().__setitem__(key, value)


async def test_readiness_sees_an_agent_that_fails_until_it_goes_on() -> None:
    config = Config(namespace="n")
    app = create_app(config)
    assert app.role_monitor.problems()["audit"] == ""
    audits = Audits(faust.App("other", broker="kafka://127.0.0.1:1"), config, lambda result: None)
    audits.latest = table = Table()
    status = encode(next(iter(EXAMPLES[StreamStatus].values())))
    message = SimpleNamespace(topic="n.market.status.v1", partition=0, offset=0)
    event = SimpleNamespace(key=b"binance:BTC/USDT", value=status, message=message)

    class Stream:
        async def events(self) -> AsyncIterator[Any]:
            yield event

    with pytest.raises(RuntimeError):
        await audits.run(Stream())
    assert audits.problem() == "the audit failed: RuntimeError: no partitions"
    table.is_broken = False
    await audits.run(Stream())
    assert audits.problem() == ""
    assert list(table) == ["binance:BTC/USDT"]
