"""Compiles all that a kernel runs, by a small log of its own, before there are records to wait."""

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.events import Heartbeat, Trade
from alpha_pulse.contracts.market import MINUTE_US, message_key
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.wire.records import EncodedRecords, RecordsWriter

_START_US = 1_763_942_400_000_000
# So many minutes that some of them are closed in every way that there is.
_MINUTES = 12


def warm_up(config: ProcessorConfig) -> None:
    """Compile what ingests and writes records, or load what an earlier start compiled. Blocks."""
    kernel = Kernel(config, "warm-up", 0)
    writer = RecordsWriter(100_000)
    # The name is nobody's: the log says itself what ids prove.
    beat = Heartbeat(
        exchange="warm-up", symbol="BTC/USDT", complete_until_us=_START_US, state="live",
        ids_are_consecutive=True,
    )  # fmt: skip
    key = message_key(beat.exchange, beat.symbol)
    writer.append((key, encode(beat)))
    for number in range(_MINUTES):
        time_us = _START_US + number * MINUTE_US + MINUTE_US // 2
        trade = Trade(
            exchange=beat.exchange, symbol=beat.symbol, trade_id=str(number), price="1.5",
            amount="2", side="buy", trade_time_us=time_us, receive_time_us=time_us,
        )  # fmt: skip
        writer.append((key, encode(trade)))
    ((text, count),) = writer.batches()
    records = EncodedRecords.read(text.tobytes(), count, 0)
    kernel.process(records, (_START_US + _MINUTES * MINUTE_US) // 1000, count)
    kernel.drain_outputs()
