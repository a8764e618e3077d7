"""Who is answered, and that nothing hostile comes near a query."""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.cli.run.page import page_beside, page_reader
from alpha_pulse.contracts.config import ClickHouseConfig, Config
from alpha_pulse.contracts.errors import StorageError, ValidationError
from alpha_pulse.contracts.market import check_exchange, check_symbol
from alpha_pulse.page import server
from alpha_pulse.page.chart import Chart
from alpha_pulse.page.history import History
from alpha_pulse.page.live import LiveMarket
from alpha_pulse.page.server import Page, plotly_js
from tests.patience import PATIENCE_S

Client = TestClient[web.Request, web.Application]
HOSTILE = (
    "BTC/USDT' OR 1=1 --",
    "BTC/USDT; DROP TABLE candles",
    "{symbol:String}/USDT",
    "../../etc/passwd",
    "BTC/USDT\n",
    "<script>/USDT",
    "BTC/USDT\x00",
    "A" * 10_000,
    "",
)


class NoHistory(History):
    """A history that must not be asked, or that is away."""

    def __init__(self) -> None:
        super().__init__(ClickHouseConfig(), Config().page, "none")
        self.asked = 0

    async def _rows(self, query: str, parameters: dict[str, str]) -> list[list[Any]]:
        self.asked += 1
        raise StorageError("expected ClickHouse, found nothing")


@pytest.fixture
def history() -> NoHistory:
    return NoHistory()


@pytest.fixture
async def client(history: NoHistory) -> AsyncIterator[Client]:
    page = Page(Config(), history, LiveMarket(Config()))
    async with TestClient(TestServer(page.application())) as client:
        yield client


@pytest.mark.parametrize("path", ["candles", "gaps", "live"])
@pytest.mark.parametrize("name", ["exchange", "symbol", "timeframe"])
async def test_hostile_names_are_refused_before_any_query(
    client: Client, history: NoHistory, path: str, name: str
) -> None:
    good = {"exchange": "binance", "symbol": "BTC/USDT", "timeframe": "1m"}
    hostile = [text for text in HOSTILE if not (name == "timeframe" and text == "")]
    for text in hostile if (path, name) != ("gaps", "timeframe") else ():
        if len(text) > 5_000:
            text = text[:5_000]  # a longer line is refused by the server as no HTTP
        response = await client.get(f"/api/{path}", params={**good, name: text})
        assert response.status == 400, (name, text)
        assert "expected" in (await response.json())["error"]
    assert history.asked == 0


@pytest.mark.parametrize(
    "changes",
    [{"count": "0"}, {"count": "1001"}, {"count": "1e3"}, {"count": "٣"}, {"before_us": "-1"}],
)
async def test_numbers_are_bounded(
    client: Client, history: NoHistory, changes: dict[str, str]
) -> None:
    asked = {"exchange": "binance", "symbol": "BTC/USDT", **changes}
    assert (await client.get("/api/candles", params=asked)).status == 400
    assert history.asked == 0


@given(st.text(max_size=60))
def test_a_name_that_is_accepted_holds_no_quote_space_or_bracket(text: str) -> None:
    for check in (check_exchange, check_symbol):
        try:
            accepted = check(text)
        except ValidationError:
            continue
        assert not set(accepted) & set("'\"`\\(){};,<> \t\r\n\0")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://["},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Host": "[::1"},
    ],
)
async def test_other_web_pages_and_foreign_names_are_refused(
    client: Client, history: NoHistory, headers: dict[str, str]
) -> None:
    for path in ("/api/markets", "/api/live?exchange=binance&symbol=BTC/USDT"):
        assert (await client.get(path, headers=headers)).status in (400, 403)
    assert history.asked == 0


async def test_only_get_is_answered(client: Client) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await client.request(method, "/api/markets")).status == 405


async def test_a_clickhouse_that_is_away_is_told_as_such(client: Client) -> None:
    response = await client.get("/api/markets")
    assert response.status == 503
    assert "found nothing" in (await response.json())["error"]


async def test_the_page_and_all_it_needs_come_from_here(client: Client) -> None:
    page = await (await client.get("/")).text()
    for name in ("page.css", "plotly.js", "page.js"):
        assert f'"{name}"' in page
    for name in ("page.css", "plotly.js", "page.js", "candles.js"):
        response = await client.get(f"/{name}")
        assert response.status == 200
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    static = Path(server.__file__).parent / "static"
    for file in static.iterdir():
        assert "://" not in file.read_text().replace("ws://${location.host}", ""), file.name
    assert plotly_js().stat().st_size > 1_000_000


def test_the_own_clickhouse_gives_the_page_a_reader_and_a_given_one_does_not() -> None:
    page, logins = page_reader(Config())
    assert [(login.name, str(login.role)) for login in logins] == [
        ("default", "admin"),
        ("page", "reader"),
    ]
    assert page.clickhouse_password == logins[1].password
    assert page_reader(Config())[0].clickhouse_password != page.clickhouse_password
    given_one = Config(clickhouse=ClickHouseConfig(url="http://10.0.0.1:8123"))
    assert page_reader(given_one) == (given_one.page, [])
    turned_off = Config(page=replace(Config().page, enabled=False))
    assert page_reader(turned_off)[1] == []


async def test_the_login_is_the_readers_even_where_the_address_carries_another() -> None:
    clickhouse = ClickHouseConfig(url="http://admin:se%2Fcret@127.0.0.1:8123")
    assert History(clickhouse, Config().page, "d")._headers == {
        "X-ClickHouse-User": "admin",
        "X-ClickHouse-Key": "se/cret",
    }
    page = replace(Config().page, clickhouse_user="page", clickhouse_password="p")
    reader = History(clickhouse, page, "d")
    assert reader._headers == {"X-ClickHouse-User": "page", "X-ClickHouse-Key": "p"}
    assert "cret" not in reader._url
    with pytest.raises(StorageError) as refusal:
        async with History(ClickHouseConfig(url="http://u:secret@127.0.0.1:1"), page, "d") as none:
            await none.gaps(Chart("a", "B/C", None))  # type: ignore[arg-type]
    assert "secret" not in str(refusal.value)


SCRIPT = """
import { Candles } from "FILE";
const minute = (number, close, closed, more) => ({ timeframe: "1m", open_time_us: number * 60e6,
  open: "10", high: String(20 + number), low: "5", close, volume: "0.1", trade_count: 2,
  coverage: "contiguous", revision: "7", closed, until_us: (number + 1) * 60e6, ...more });
const chart = new Candles("3m", 180e6, 100);
chart.load([minute(0, "1", true, { timeframe: "3m", until_us: 180e6, revision: "0" }),
  minute(3, "2", false, { timeframe: "3m", until_us: 240e6, volume: "1" })]);
for (const candle of [minute(3, "9", true), minute(4, "3", true), minute(5, "4", false),
  minute(5, "5", true), minute(5, "6", false), minute(6, "7", false)]) chart.put(candle);
const revised = new Candles("1m", 60e6, 2);
for (const [close, revision] of [["1", "9"], ["2", "10"], ["3", "9"]])
  revised.put(minute(1, close, true, { revision }));
for (const number of [2, 3]) revised.put(minute(number, "8", true));
console.log(JSON.stringify({
  pending: chart.pending().map((c) =>
    [c.open_time_us / 60e6, c.open, c.high, c.close, c.volume, c.closed]),
  completes: [4, 5].map((number) => chart.completes(minute(number, "1", true))),
  kept: revised.all().map((c) => [c.open_time_us / 60e6, c.close]),
  week: new Candles("1w", 6.048e11, 1).windowOf(1794700800e6),
}));
"""


def test_the_open_window_is_made_of_its_minutes_each_once(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node to run the page's own script")
    script = tmp_path / "script.mjs"
    file = Path(server.__file__).parent / "static" / "candles.js"
    (tmp_path / "candles.mjs").write_bytes(file.read_bytes())
    script.write_text(SCRIPT.replace("FILE", "./candles.mjs"))
    run = subprocess.run(
        [node, script], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert json.loads(run.stdout) == {
        # The base reaches to minute 4; 5 was closed before an older state of it came.
        "pending": [
            [3, "10", "25", "5", "1.2", False],
            [6, "10", "26", "7", "0.1", False],
        ],
        "completes": [False, True],
        "kept": [[2, "8"], [3, "8"]],
        "week": 1794182400000000,  # 2026-11-09, the Monday before Sunday 2026-11-15
    }


async def test_the_command_says_where_the_page_is_and_goes_on_without_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(page=replace(Config().page, port=0))
    async with page_beside(config, config.page):
        (address,) = re.findall(
            r"in a browser: (http://127[.]0[.]0[.]1:\d+/)", capsys.readouterr().err
        )
        async with ClientSession() as session, session.get(address) as response:
            assert "<title>AlphaPulse</title>" in await response.text()
        # Its port is taken now: another one is.
        taken = replace(config.page, port=int(address.rstrip("/").rpartition(":")[2]))
        async with page_beside(config, taken):
            assert address not in capsys.readouterr().err
    async with page_beside(config, replace(config.page, enabled=False)):
        assert "browser" not in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    async with page_beside(config, config.page):
        assert "no page: expected the package plotly" in capsys.readouterr().err
