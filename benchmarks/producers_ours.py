"""Contender: our own live producer and publisher.

Arguments: address, Kafka, namespace, trades, exchange.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import uvloop

from alpha_pulse.contracts.config import KafkaConfig, ProducerConfig
from alpha_pulse.contracts.roles.logs import configure_logs
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.producers.live import LiveProducer
from alpha_pulse.producers.role import tune_memory
from alpha_pulse.replay.dialects import DIALECTS

RSS_AT = 100_000


def rss_mib() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


async def main(url: str, kafka: str, namespace: str, trades: int, exchange: str) -> None:
    """Follow until every trade's record is acknowledged."""
    config = ProducerConfig(
        exchange=exchange,
        symbols=(DIALECTS[exchange].unified_symbol("BTC/USDT"),),
        exchange_url=url,
        exchange_candles=False,
    )
    publisher = Publisher(
        KafkaConfig(bootstrap=kafka),
        "bench",
        batch_bytes_max=config.publish_batch_bytes_max,
        pending_bytes_max=config.publish_pending_bytes_max,
        interval_s=config.publish_interval_s,
    )
    await publisher.start()
    producer = LiveProducer(config, publisher, namespace=namespace)
    stop = asyncio.Event()
    following = asyncio.create_task(producer.run(stop))
    while not producer.intake.frames:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    cpu, count = time.process_time(), publisher.acknowledged
    rss: dict[str, float] = {}
    while publisher.acknowledged < trades:
        await asyncio.sleep(0.005)
        if publisher.acknowledged >= RSS_AT and not rss:
            rss[str(RSS_AT)] = rss_mib()
    measured = {
        "records": publisher.acknowledged - count,
        "cpu_s": time.process_time() - cpu,
        "rss_mib": {**rss, str(trades): rss_mib()},
    }
    stop.set()
    await following
    await publisher.stop()
    print(json.dumps(measured))


if __name__ == "__main__":
    configure_logs()
    tune_memory()
    uvloop.run(main(*sys.argv[1:4], int(sys.argv[4]), sys.argv[5]))
