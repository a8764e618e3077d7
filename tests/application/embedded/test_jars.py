"""Only whole, checked jars come into the cache."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from alpha_pulse.embedded.errors import DownloadError
from alpha_pulse.embedded.jars import Jar, fetch_jars, pinned_jars
from alpha_pulse.embedded.progress import StartProgress

CONTENT = {"a": b"jar a" * 10_000, "b": b"jar b" * 20_000}
JARS = [
    Jar(hashlib.sha256(content).hexdigest(), len(content), f"some.group:{name}:1.0")
    for name, content in CONTENT.items()
]


class Handler(http.server.SimpleHTTPRequestHandler):
    requested: list[str]
    cut: bool

    def do_GET(self) -> None:
        self.requested.append(self.path)
        content = CONTENT.get(self.path.split("/")[-3]) if self.path.endswith(".jar") else None
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:100] if self.cut else content)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def repository(*, cut: bool = False) -> Iterator[tuple[str, list[str]]]:
    requested: list[str] = []
    handler = type("Served", (Handler,), {"requested": requested, "cut": cut})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", requested
        server.shutdown()
        thread.join()


def ignore(_step: StartProgress) -> None:
    return


def test_jars_are_fetched_once_and_then_come_from_the_cache(tmp_path: Path) -> None:
    steps: list[StartProgress] = []
    with repository() as (url, requested):
        paths = fetch_jars(JARS, tmp_path, steps.append, repository_url=url)
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert "/some/group/a/1.0/a-1.0.jar" in requested
    assert steps[-1].done_bytes == steps[-1].total_bytes == sum(map(len, CONTENT.values()))
    # The repository is gone now.
    assert fetch_jars(JARS, tmp_path, ignore, repository_url=url) == paths


def test_a_damaged_jar_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    with repository() as (url, requested):
        paths = fetch_jars(JARS, tmp_path, ignore, repository_url=url)
        paths[1].write_bytes(b"rubbish")
        requested.clear()
        fetch_jars(JARS, tmp_path, ignore, repository_url=url)
        assert paths[1].read_bytes() == CONTENT["b"]
        assert not any("/a-1.0.jar" in path for path in requested)


def test_a_jar_with_another_checksum_is_refused_and_not_kept(tmp_path: Path) -> None:
    wrong = [JARS[0], Jar("0" * 64, JARS[1].size_bytes, JARS[1].coordinate)]
    with repository() as (url, _), pytest.raises(DownloadError, match="another SHA-256"):
        fetch_jars(wrong, tmp_path, ignore, repository_url=url)
    assert not list(tmp_path.rglob("b-1.0.jar"))


def test_a_download_that_is_cut_leaves_nothing_behind(tmp_path: Path) -> None:
    with repository(cut=True) as (url, _), pytest.raises(DownloadError, match="start again"):
        fetch_jars(JARS, tmp_path, ignore, repository_url=url)
    assert not list(tmp_path.rglob("*.jar"))


def test_an_unreachable_repository_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    with repository() as (url, _):
        pass
    with pytest.raises(DownloadError) as caught:
        fetch_jars(JARS, tmp_path, ignore, repository_url=url)
    assert "check the network" in str(caught.value)
    assert "ALPHA_PULSE_KAFKA" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_jar_that_the_repository_lacks_is_named(tmp_path: Path) -> None:
    missing = Jar("0" * 64, 1, "some.group:c:1.0")
    with repository() as (url, _), pytest.raises(DownloadError, match=r"expected c-1\.0\.jar"):
        fetch_jars([missing], tmp_path, ignore, repository_url=url)


def test_every_pin_has_a_checksum_a_size_and_a_coordinate() -> None:
    jars = pinned_jars()
    assert len({jar.filename for jar in jars}) == len(jars)
    assert any(jar.coordinate == "org.apache.kafka:kafka_2.13:4.3.1" for jar in jars)
    for jar in jars:
        assert len(bytes.fromhex(jar.sha256)) == 32
        assert jar.size_bytes > 0
        assert jar.coordinate.count(":") == 2
