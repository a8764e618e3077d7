"""Quix Streams: dedupe in state, tumbling windows that close by event time. Arguments: bootstrap,
group, namespace. 1m candles only; open and close follow the order of arrival."""

import sys
import tempfile
from datetime import timedelta
from typing import Any

from quixstreams import Application  # type: ignore[import-not-found]
from quixstreams.dataframe.windows import (  # type: ignore[import-not-found]
    Count,
    First,
    Last,
    Max,
    Min,
    Sum,
)

BOOTSTRAP, GROUP, NAMESPACE = sys.argv[1:4]

app = Application(
    broker_address=BOOTSTRAP,
    consumer_group=GROUP,
    auto_offset_reset="earliest",
    state_dir=tempfile.mkdtemp(),
    loglevel="ERROR",
    commit_interval=0.5,
)
trades_in = app.topic(
    f"{NAMESPACE}.ingest.events.v1",
    value_deserializer="json",
    timestamp_extractor=lambda value, *_: value["trade_time_us"] // 1000,
)
trades_out = app.topic(f"{NAMESPACE}.market.trades.v1", value_serializer="json")
candles_out = app.topic(f"{NAMESPACE}.market.candles.1m.v1", value_serializer="json")
ready = [False]


def valid(trade: dict[str, Any]) -> bool:
    """Parse and check."""
    if not ready[0]:
        ready[0] = True
        print("READY", flush=True)
    trade["p"], trade["a"] = float(trade["price"]), float(trade["amount"])
    return bool(trade["p"] > 0 and trade["a"] > 0)


def is_new(trade: dict[str, Any], state: Any) -> bool:
    """Look the id up among the symbol's last 64."""
    ids = state.get("ids", [])
    if trade["trade_id"] in ids:
        return False
    state.set("ids", [*ids, trade["trade_id"]][-64:])
    return True


def named(candle: dict[str, Any]) -> dict[str, Any]:
    """Name the window as the others do."""
    candle["open_time_us"] = candle.pop("start") * 1000
    del candle["end"]
    return candle


frame = app.dataframe(trades_in).filter(valid).filter(is_new, stateful=True)
frame = frame.to_topic(trades_out)
frame = (
    frame.tumbling_window(timedelta(minutes=1), grace_ms=timedelta(seconds=2))
    .agg(
        open=First("p"),
        high=Max("p"),
        low=Min("p"),
        close=Last("p"),
        volume=Sum("a"),
        trade_count=Count(),
    )
    .final(closing_strategy="key")
)
frame = frame.apply(named).to_topic(candles_out)

if __name__ == "__main__":
    app.run()
