"""Textbook Faust: an agent, a windowed table, `on_window_close`. Arguments: bootstrap, group,
namespace, partitions. 1m candles only."""

import os
import sys
from typing import Any

import faust

BOOTSTRAP, GROUP, NAMESPACE, PARTITIONS = sys.argv[1:5]

app = faust.App(
    GROUP,
    broker=f"kafka://{BOOTSTRAP}",
    store="memory://",
    topic_partitions=int(PARTITIONS),
    topic_replication_factor=1,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    table_cleanup_interval=1.0,
    broker_commit_interval=1.0,
    web_enabled=False,
    datadir=f"/tmp/{GROUP}",
)
trades_in = app.topic(f"{NAMESPACE}.ingest.events.v1", key_type=str, value_serializer="json")
trades_out = app.topic(f"{NAMESPACE}.market.trades.v1", key_type=str, value_serializer="json")
candles_out = app.topic(f"{NAMESPACE}.market.candles.1m.v1", key_type=str, value_serializer="json")


def closed(key: Any, candle: dict[str, Any]) -> None:
    """Publish a window that expired."""
    symbol, (start_s, _) = key
    candles_out.send_soon(key=symbol, value={**candle, "open_time_us": int(start_s * 1_000_000)})


candles = (
    app.Table("candles", default=dict, on_window_close=closed)
    .tumbling(60.0, expires=65.0)
    .relative_to_stream()
)
seen = app.Table("seen", default=list)
state = {"ready": False}


@app.agent(trades_in)  # type: ignore[untyped-decorator]
async def process(stream: Any) -> None:
    """Validate, dedupe, pass on, count."""
    async for event in stream.events():
        if not state["ready"]:
            state["ready"] = True
            os.write(1, b"READY\n")  # Faust sends print() to its log
        trade, key = event.value, event.key
        price, amount = float(trade["price"]), float(trade["amount"])
        if not (price > 0 and amount > 0):
            continue
        ids = seen[key]
        if trade["trade_id"] in ids:
            continue
        seen[key] = [*ids, trade["trade_id"]][-64:]
        await trades_out.send(key=key, value=trade)
        candle = candles[key].value() or {"open": price, "high": price, "low": price, "volume": 0.0}
        candle = dict(candle)
        candle["high"], candle["low"] = max(candle["high"], price), min(candle["low"], price)
        candle["close"] = price
        candle["volume"] += amount
        candle["trade_count"] = candle.get("trade_count", 0) + 1
        candles[key] = candle


if __name__ == "__main__":
    sys.argv = ["faust", "--quiet", "worker", "--loglevel", "error", "--without-web"]
    app.main()
