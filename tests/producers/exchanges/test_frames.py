"""Decoders against real frames, and against frames that are none."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_pulse.contracts.codec import decode_ingest, encode
from alpha_pulse.contracts.events import Candle, Ids, Trade
from alpha_pulse.producers.connection.tap import Frame, Socket
from alpha_pulse.producers.exchanges.decoder import FrameDecoder
from alpha_pulse.producers.exchanges.numbers import iso_time_us, positive_text, sum_text
from alpha_pulse.producers.exchanges.registry import ExchangeType
from alpha_pulse.producers.exchanges.tick import (
    FrameError,
    FrameTime,
    Refusal,
    SystemStatus,
    Throttled,
    Tick,
)
from alpha_pulse.producers.feed.intake import FRAME_LENGTH_MAX, Intake
from tests.patience import FULL
from tests.rooms import a_decoder, documented_frames, market_ids

RECEIVED_US = 1_790_000_000_000_000
# In the long form 10,000 of all decoders together; atheris goes further (`make fuzz`).
FRAMES_EACH = -(-10_000 // len(ExchangeType)) if FULL else 200
decoder = a_decoder


def ticks(name: str, frame: str) -> list[Tick]:
    found = decoder(name)(frame, RECEIVED_US)
    assert found is not None
    return found


@pytest.mark.parametrize("name", sorted(ExchangeType))
def test_the_frames_in_the_docstring_decode_as_they_stand(name: str) -> None:
    frames = documented_frames(name)
    assert frames
    decode = decoder(name)
    trades = 0
    for frame in frames:
        for tick in decode(frame, RECEIVED_US) or ():
            if isinstance(tick, Trade | Candle | Ids):
                assert decode_ingest(encode(tick)) == tick
            trades += isinstance(tick, Trade)
    assert trades >= 1


@pytest.mark.parametrize(
    ("name", "part", "expected"),
    [
        ("bybit", "handler not found", [Refusal("BTC/USDT", "")]),
        ("bybit", "Invalid symbol", [Refusal("BTC/USDT", "")]),
        ("bybit", "already subscribed", []),
        ("okx", "60018", [Refusal("BTC/USDT", "")]),
        ("okx", "60014", [Throttled("", "")]),
        ("kraken", "not supported", [Refusal("BTC/USD", "")]),
        ("kraken", "Already subscribed", []),
        ("kraken", "Exceeded msg rate", [Throttled("BTC/USD", "")]),
        ("kraken", "maintenance", [SystemStatus(False, "maintenance")]),
        ("coinbase", '"message":"NOPE', [Refusal("BTC/USD", "")]),
        ("coinbase", "Failed to subscribe", [Refusal("BTC/USD", "")]),
        ("coinbase", "rate limit", [Throttled("", "")]),
    ],
)
def test_each_documented_answer_means_what_it_says(
    name: str, part: str, expected: list[Tick]
) -> None:
    (frame,) = (frame for frame in documented_frames(name) if part in frame)
    quote = "USD" if name in ("kraken", "coinbase") else "USDT"
    for theirs, ours in (("NOPE-", "BTC-"), ("NOPE/", "BTC/"), ("NOPE", "BTC")):
        frame = frame.replace(theirs + quote, ours + quote)
    found = ticks(name, frame)
    meant = [
        replace(tick, reason="") if isinstance(tick, Refusal | Throttled) else tick
        for tick in found
    ]
    assert meant == expected


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        (
            "bybit",
            '{"success":false,"ret_msg":"error:topic not exist,topic:publicTrade.BTCUSDT",'
            '"op":"unsubscribe"}',
        ),
        (
            "kraken",
            '{"error":"Subscription Not Found","method":"unsubscribe","success":false,'
            '"symbol":"BTC/USD"}',
        ),
    ],
)
def test_an_unsubscribe_that_fails_refuses_no_symbol(name: str, frame: str) -> None:
    assert ticks(name, frame) == []


def test_kraken_may_name_the_pair_in_the_text_alone() -> None:
    error = {"error": "Currency pair not supported BTC/USD", "success": False}
    (tick,) = ticks("kraken", msgspec.json.encode({**error, "method": "subscribe"}).decode())
    assert isinstance(tick, Refusal)
    assert tick.symbol == "BTC/USD"
    rate = {"error": "Exceeded msg rate", "success": False, "method": "subscribe"}
    assert ticks("kraken", msgspec.json.encode(rate).decode()) == [
        Throttled("", "Exceeded msg rate")
    ]


def test_bybit_names_every_topic_that_it_refuses() -> None:
    frame = '{"success":false,"ret_msg":"Invalid symbol :[publicTrade.BTCUSDT,kline.1.BNBBTC]"}'
    found = [tick.symbol for tick in ticks("bybit", frame) if isinstance(tick, Refusal)]
    assert found == ["BTC/USDT", "BNB/BTC"]


def test_okx_names_the_instrument_of_a_request_that_it_calls_illegal() -> None:
    request = '{"op":"subscribe","args":[{"channel":"trades-all","instId":"BTC-USDT"}]}'
    error = {"event": "error", "code": "60012", "msg": f"Illegal request: {request}"}
    frame = msgspec.json.encode(error).decode()
    (tick,) = ticks("okx", frame)
    assert isinstance(tick, Refusal)
    assert tick.symbol == "BTC/USDT"


@pytest.mark.parametrize("status", ["online", "limit_only"])
def test_kraken_trades_in_these_states(status: str) -> None:
    (frame,) = (frame for frame in documented_frames("kraken") if "maintenance" in frame)
    assert ticks("kraken", frame.replace("maintenance", status)) == [SystemStatus(True, status)]


def test_binance_trade_keeps_the_exchange_digits_and_names_the_takers_side() -> None:
    frame = documented_frames("binance")[0]
    assert decoder("binance")(frame, RECEIVED_US) == [
        Trade(
            exchange="binance",
            symbol="BTC/USDT",
            trade_id="3735683260",
            price="61837.63000000",
            amount="0.04800000",
            side="sell",
            trade_time_us=1_723_161_255_617_000,
            receive_time_us=RECEIVED_US,
        )
    ]


def numbered(name: str, number: int) -> str:
    """The documented trade frame with another id."""
    frame = documented_frames(name)[0]
    (trade,) = ticks(name, frame)
    assert isinstance(trade, Trade)
    return frame.replace(trade.trade_id, str(number))


def in_turn(decode: FrameDecoder, frames: Sequence[str]) -> list[Tick]:
    return [tick for frame in frames for tick in decode(frame, RECEIVED_US) or ()]


def ids_of(ticks: Iterable[Tick] | None) -> list[str]:
    return [tick.trade_id for tick in ticks or () if isinstance(tick, Trade)]


@pytest.mark.parametrize("flag", ["NA", "INSURANCE_FUND", "ADL", "SOMETHING_NEW"])
@pytest.mark.parametrize("price", ["0", "70321.45"])
def test_binanceusdm_flagged_fills_are_ids_of_no_trade_alone_and_together(
    flag: str, price: str
) -> None:
    frame = documented_frames("binanceusdm")[0]
    frames = [frame.replace("5248193810", str(number)) for number in range(12)]
    for place in (0, 4, 5, 11):
        frames[place] = frames[place].replace("MARKET", flag).replace("61837.60", price)
    decode = decoder("binanceusdm")
    one_by_one = in_turn(decode, frames)
    assert decode.trades(frames, RECEIVED_US) == one_by_one
    assert ids_of(one_by_one) == [str(n) for n in range(12) if n not in (0, 4, 5, 11)]
    assert one_by_one[4] == Ids(
        exchange="binanceusdm", symbol="BTC/USDT", first_trade_id="4", last_trade_id="4",
        time_us=1_723_161_255_342_000, reason="no_trade",
    )  # fmt: skip
    flagged = frames[4:6] * 2
    assert decode.trades(flagged, RECEIVED_US) == in_turn(decode, flagged)


@pytest.mark.parametrize(
    "spoiled",
    [('"t":5248193810', '"t":-1'), ('"T":1723161255342', '"T":1'), ("BTCUSDT", "NOSUCH")],
)
def test_binanceusdm_flagged_fills_are_checked_as_trades_are(spoiled: tuple[str, str]) -> None:
    frame = documented_frames("binanceusdm")[0]
    bad = frame.replace("MARKET", "NA").replace(*spoiled)
    decode = decoder("binanceusdm")
    with pytest.raises(FrameError):
        decode(bad, RECEIVED_US)
    assert decode.trades([frame, bad, frame, frame], RECEIVED_US) is None


@pytest.mark.parametrize("name", sorted(ExchangeType))
def test_many_frames_at_once_are_the_same_as_one_by_one(name: str) -> None:
    frames = [numbered(name, number) for number in range(10)]
    decode = decoder(name)
    together = decode.trades(frames, RECEIVED_US)
    assert together == in_turn(decode, frames)
    assert ids_of(together) == [str(number) for number in range(10)]
    assert decode.trades([], RECEIVED_US) == []


@pytest.mark.parametrize(
    "name", [n for n in sorted(ExchangeType) if "[" in documented_frames(n)[0]]
)
def test_frames_of_several_trades_keep_their_order_at_once_too(name: str) -> None:
    # The newest first in each frame; the decoder brings them into the exchange's order.
    frame = numbered(name, 1)
    begin, end = frame.rindex("{"), frame.index("}", frame.rindex("{")) + 1
    row = frame[begin:end]
    rows = [row.replace('"1"', f'"{n}"').replace(":1,", f":{n},") for n in (7, 6, 5)]
    frames = [numbered(name, 9), frame.replace(row, ",".join(rows)), frame.replace(row, "")] * 2
    decode = decoder(name)
    together = decode.trades(frames, RECEIVED_US)
    assert together == in_turn(decode, frames)
    assert len(together) == 8


def test_coinbase_frames_of_two_products_are_each_by_id_at_once_too() -> None:
    frame = documented_frames("coinbase")[0]
    row = frame[frame.index('{"trade_id"') : frame.index("]}]}")]
    second = row.replace("BTC-USD", "ETH-USD").replace("995098700", "17")
    decode = decoder("coinbase")
    found = decode.trades([frame.replace(row, f"{row},{second}")] * 4, RECEIVED_US)
    assert found is not None
    assert [(t.symbol, *ids_of([t])) for t in found] == [
        ("ETH/USD", "17"),
        ("BTC/USD", "995098700"),
    ] * 4


def test_kraken_small_numbers_are_for_the_careful_way() -> None:
    small = documented_frames("kraken")[0].replace("0.00027625", "9e-08")
    assert decoder("kraken").trades([small] * 4, RECEIVED_US) is None


@pytest.mark.parametrize(
    "spoiled",
    [
        ['{"e":"trade"', "}"],
        ["null", "{},{}"],
        ["", "1,2"],
        ['{"e":"kline"}', '{"result":null,"id":1}'],
        ['{"event":"trade","E":1,"s":"BTCUSDT","t":1,"p":"1","q":"1","T":1723161255617,"m":true}'],
    ],
)
def test_binance_frames_that_only_together_are_json_are_not_taken_together(
    spoiled: list[str],
) -> None:
    good = documented_frames("binance")[0]
    assert decoder("binance").trades([good, *spoiled], RECEIVED_US) is None


@pytest.mark.parametrize(
    "change",
    [
        ('"p":"61837.63000000"', '"p":"0"'),
        ('"p":"61837.63000000"', '"p":"-1"'),
        ('"p":"61837.63000000"', '"p":"1e999999999"'),
        ('"p":"61837.63000000"', '"p":null'),
        ('"q":"0.04800000"', '"q":"NaN"'),
        ('"s":"BTCUSDT"', '"s":"NOSUCH"'),
        ('"t":3735683260', '"t":-1'),
        ('"t":3735683260', '"t":1' + "0" * 20),
        ('"t":3735683260', '"t":3' + "0" * 72),
        ('"T":1723161255617', '"T":17231612556170000'),
        ('"T":1723161255617', '"T":5'),
    ],
)
def test_binance_bad_trade_is_refused_alone_and_among_others(change: tuple[str, str]) -> None:
    good = documented_frames("binance")[0]
    assert change[0] in good
    bad = good.replace(*change)
    decode = decoder("binance")
    with pytest.raises(FrameError):
        decode(bad, RECEIVED_US)
    assert decode.trades([good, bad, good, good], RECEIVED_US) is None


def test_binance_candle_counts_only_when_the_frame_says_final() -> None:
    final = documented_frames("binance")[1]
    candle, clock = ticks("binance", final)
    assert isinstance(candle, Candle)
    assert (candle.first_trade_id, candle.last_trade_id, candle.trade_count) == ("100", "200", 100)
    assert (candle.volume, candle.buy_volume, candle.quote_volume) == ("1000", "500", "1.0000")
    assert clock == FrameTime("BNB/BTC", 1_672_515_780_000_000)
    unfinished = final.replace('"x":true', '"x":false')
    assert decoder("binance")(unfinished, RECEIVED_US) == [clock]


def test_binance_empty_minute_has_no_trade_ids() -> None:
    final = documented_frames("binance")[1]
    empty = final.replace('"f":100,"L":200', '"f":-1,"L":-1').replace('"n":100', '"n":0')
    candle, _ = ticks("binance", empty.replace('"v":"1000"', '"v":"0"'))
    assert isinstance(candle, Candle)
    assert (candle.trade_count, candle.first_trade_id, candle.last_trade_id) == (0, None, None)


def test_kraken_json_numbers_keep_every_digit() -> None:
    frame = documented_frames("kraken")[0].replace("0.00027625", "9e-08")
    (trade,) = ticks("kraken", frame)
    assert isinstance(trade, Trade)
    assert (trade.price, trade.amount) == ("105944.20", "0.00000009")
    assert trade.trade_time_us == 1_696_613_755_440_295


def test_kraken_candle_is_final_when_the_next_one_begins_or_a_snapshot_shows_it_past() -> None:
    template = documented_frames("kraken")[1].replace('"interval":5', '"interval":1')
    decode = decoder("kraken")

    def candles(frame: str) -> list[str]:
        return [tick.close for tick in decode(frame, RECEIVED_US) or () if isinstance(tick, Candle)]

    assert candles(template) == []
    assert candles(template.replace('"close":0.5627', '"close":0.5626')) == []
    following = template.replace("T16:25:00.000000000Z", "T16:26:00.000000000Z")
    assert candles(following) == ["0.5626"]
    assert candles(following) == []


def test_bybit_candle_counts_only_when_confirmed() -> None:
    frame = documented_frames("bybit")[1].replace("kline.5", "kline.1")
    assert ticks("bybit", frame) == [FrameTime("BTC/USDT", 1_672_324_988_882_000)]
    candle, _ = ticks("bybit", frame.replace('"confirm":false', '"confirm":true'))
    assert isinstance(candle, Candle)
    assert (candle.close, candle.volume, candle.quote_volume) == ("16677", "2.081", "34666.4005")
    assert candle.trade_count is None


def test_a_coinbase_frame_with_two_products_files_each_trade_under_its_own() -> None:
    frame = documented_frames("coinbase")[0]
    row = frame[frame.index('{"trade_id"') : frame.index("]}]}")]
    second = row.replace("BTC-USD", "ETH-USD").replace("995098700", "17")
    trades = ticks("coinbase", frame.replace(row, f"{row},{second}"))
    assert [(t.symbol, t.trade_id) for t in trades if isinstance(t, Trade)] == [
        ("ETH/USD", "17"),
        ("BTC/USD", "995098700"),
    ]


def test_coinbase_names_the_makers_side_so_the_taker_is_the_other() -> None:
    (trade,) = ticks("coinbase", documented_frames("coinbase")[0])
    assert isinstance(trade, Trade)
    assert trade.side == "sell"


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        (
            "kraken",
            '{"error":"Currency pair not supported BTC/USD","method":"subscribe","req_id":2,'
            '"success":false,"symbol":"BTC/USD"}',
        ),
        (
            "okx",
            '{"event":"error","code":"60018","msg":"Wrong URL or channel:trades-all,'
            'instId:BTC-USDT doesn\'t exist.","connId":"a"}',
        ),
        (
            "bybit",
            '{"success":false,"ret_msg":"error:handler not found,topic:publicTrade.BTCUSDT",'
            '"conn_id":"a","req_id":"1","op":"subscribe"}',
        ),
        ("coinbase", '{"type":"error","message":"BTC-USD is not a valid product"}'),
    ],
)
def test_a_refused_subscription_names_its_symbol(name: str, frame: str) -> None:
    (refusal,) = ticks(name, frame)
    assert isinstance(refusal, Refusal)
    assert refusal.symbol.startswith("BTC/")


@pytest.mark.parametrize("name", sorted(ExchangeType))
@pytest.mark.parametrize("frame", ["", "[]", "null", "<html>", '{"a":' * 500, "7", '"x"', "\ud800"])
def test_what_is_no_object_is_refused(name: str, frame: str) -> None:
    with pytest.raises(FrameError):
        decoder(name)(frame, RECEIVED_US)


def json_text(value: float | str) -> str:
    return msgspec.json.encode(value).decode()


def places_of(frame: str) -> list[tuple[int, int]]:
    """Where the values of a frame are that are no objects and arrays."""
    return [match.span() for match in re.finditer(r'(?<=:)("[^"]*"|[-0-9.e]+|true|false)', frame)]


def replaced(frame: str, place: tuple[int, int], value: str) -> str:
    return frame[: place[0]] + value + frame[place[1] :]


def mutated(frame: str) -> st.SearchStrategy[str]:
    """A frame with one value of it replaced by any other JSON value."""
    # An integer beyond what msgspec encodes is read all the same.
    values = st.one_of(
        st.sampled_from(["null", "true", "false", "[]"]),
        st.integers().map(str),
        st.integers(1, 80).map("7".__mul__),
        st.one_of(st.floats(), st.text(max_size=20)).map(json_text),
    )
    replace = partial(replaced, frame)
    return st.builds(replace, st.sampled_from(places_of(frame)), values)


def check_any_frame(decode: FrameDecoder, frame: str) -> None:
    try:
        ticks = decode(frame, RECEIVED_US)
    except FrameError:
        return
    for tick in ticks or ():
        if isinstance(tick, Trade | Candle):
            assert decode_ingest(encode(tick)) == tick


def any_frame_test(name: str) -> Callable[[], None]:
    frames = documented_frames(name)

    @given(st.one_of(st.text(max_size=200), *[mutated(frame) for frame in frames]))
    @settings(max_examples=FRAMES_EACH, deadline=None)
    def run(frame: str) -> None:
        check_any_frame(decoder(name), frame)

    return run


@pytest.mark.parametrize("name", sorted(ExchangeType))
def test_any_frame_gives_events_of_the_contract_or_a_frame_error(name: str) -> None:
    any_frame_test(name)()


class Received:
    """What an intake makes of frames, in the order in which it did."""

    def __init__(self, name: str) -> None:
        self.events: list[object] = []
        symbols: Any = SimpleNamespace(at=lambda url: market_ids(name))
        self.intake = Intake(
            name,
            name,
            symbols,
            on_trades=lambda trades, now_us: self.events.extend(trades),
            on_tick=lambda tick, now_us: self.events.append(tick),
            on_letter=self.events.append,
        )
        self.socket = Socket("wss://x/spot", self.events.append)
        self.intake.add_socket(self.socket)

    def receive(self, frames: list[Frame]) -> None:
        clock = SimpleNamespace(monotonic_ns=lambda: 1_000, time_ns=lambda: RECEIVED_US * 1000)
        with patch("alpha_pulse.producers.feed.intake.time", clock):
            self.intake.receive(self.socket, frames)


def check_both_ways(name: str, frames: list[Frame]) -> None:
    at_once, in_turn = Received(name), Received(name)
    at_once.receive(frames)
    for frame in frames:
        in_turn.receive([frame])
    assert at_once.events == in_turn.events
    assert at_once.intake.dead_letters.reasons == in_turn.intake.dead_letters.reasons


def loop_turns(name: str) -> st.SearchStrategy[list[Frame]]:
    """Frames of one loop turn: good ones, and among them some that are changed, cut or joined."""
    good = st.integers(0, 10**20).map(lambda number: numbered(name, number))
    changed = st.one_of([mutated(frame) for frame in documented_frames(name)])
    pieces = st.builds(lambda frame, at: [frame[:at], frame[at:]], good, st.integers(0, 300))
    others = st.one_of(
        changed.map(lambda frame: [frame]),
        st.sampled_from(documented_frames(name)).map(lambda frame: [frame]),
        pieces,
        st.builds(lambda one, two: [f"{one},{two}"], good, good),
        changed.map(lambda frame: [frame.encode("utf-8", "surrogatepass")]),
        st.text(max_size=20).map(lambda text: [text]),
    )

    def among(frames: list[Frame], spoiled: list[tuple[int, list[Frame]]]) -> list[Frame]:
        for place, few in spoiled:
            frames[place:place] = few
        return frames

    return st.builds(
        among,
        st.lists(good, min_size=3, max_size=6),
        st.lists(st.tuples(st.integers(0, 6), others), max_size=2),
    )


@pytest.mark.parametrize("name", sorted(ExchangeType))
def test_a_loop_turn_of_any_frames_gives_the_same_at_once_and_one_by_one(name: str) -> None:
    @given(loop_turns(name))
    @settings(max_examples=FRAMES_EACH, deadline=None)
    def run(frames: list[Frame]) -> None:
        check_both_ways(name, frames)

    run()


@pytest.mark.parametrize("name", sorted(ExchangeType))
def test_frames_of_any_kind_among_good_ones_are_what_they_are_alone(name: str) -> None:
    good = numbered(name, 1)
    for frame in [*documented_frames(name), "", "pong", "{}", "[]", '{"event":"x"}', good[:40]]:
        check_both_ways(name, [good, frame, good, good])
        check_both_ways(name, [good, frame.encode(), good, good])


@pytest.mark.parametrize("name", sorted(ExchangeType))
def test_any_bad_value_among_good_frames_is_refused_as_it_is_alone(name: str) -> None:
    good = numbered(name, 1)
    texts = ["", "x", "0", "-1", "+7", "1.5", "9e-08", "٣", "7\n", "7" * 20, "7" * 25, "ETH-USD"]
    texts += ["7" * 64, "7" * 65, "two words", "\x7f"]
    numbers = ["0", "-1", "1.5", "9e-08", "7" * 13, "7" * 16, "7" * 20, "7" * 25]
    values = [*map(json_text, texts), *numbers, "null", "true", "false", "[]", "{}"]
    for place in places_of(good):
        for value in values:
            bad = replaced(good, place, value)
            check_both_ways(name, [good, bad, good, good])
            check_both_ways(name, [bad] * 4)


@pytest.mark.parametrize("name", sorted(ExchangeType))
def test_frames_that_only_together_are_json_are_not_taken_together(name: str) -> None:
    good = numbered(name, 1)
    # Left open, a frame would swallow the next one; the third has two, so the count is right.
    for opened, closed in (("[{}", "]}"), ('"{', '"}'), ("[[{}", "]]}")):
        left_open = good[:-1] + f',"x":{opened}'
        frames: list[Frame] = [left_open, good[:-1] + "}" + closed, f"{good},{good}", good, good]
        check_both_ways(name, frames)


@pytest.mark.parametrize("name", sorted(ExchangeType))
def test_a_frame_too_long_is_refused_among_others_too(name: str) -> None:
    good = numbered(name, 1)
    long = good[:-1] + f',"x":"{"x" * FRAME_LENGTH_MAX}"' + "}"
    check_both_ways(name, [good, good, long, good])


@given(st.decimals(min_value=Decimal("1e-12"), max_value=Decimal("1e19"), places=12))
def test_positive_numbers_keep_their_value_as_plain_text(number: Decimal) -> None:
    for text in (str(number), f"{number:f}", f"{number:E}"):
        assert Decimal(positive_text(text)) == number
        assert "E" not in positive_text(text)


@pytest.mark.parametrize("text", ["0", "0.0", "-1", "1e-13", "1e20", "inf", "nan", "", "1,5", "x"])
def test_numbers_that_the_contract_refuses_are_frame_errors(text: str) -> None:
    with pytest.raises(FrameError):
        positive_text(text)


def test_a_volume_may_be_zero() -> None:
    assert sum_text("0.00000000") == "0.00000000"
    assert sum_text("0e-8") == "0.00000000"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-10-06T17:35:55.440295Z", 1_696_613_755_440_295),
        ("2023-10-06T17:35:55.4Z", 1_696_613_755_400_000),
        ("2023-10-06T17:35:55Z", 1_696_613_755_000_000),
        ("2023-10-04T16:25:00.123456789Z", 1_696_436_700_123_456),
    ],
)
def test_iso_times_are_exact_to_the_microsecond(text: str, expected: int) -> None:
    assert iso_time_us(text) == expected


@pytest.mark.parametrize("text", ["", "2023", "2023-10-06T17:35:55", "2023-10-06T17:35:55.4x0295Z"])
def test_other_times_are_frame_errors(text: str) -> None:
    with pytest.raises(FrameError):
        iso_time_us(text)
