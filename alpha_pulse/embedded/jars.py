"""The jars of Apache Kafka: fetched once through jgo, checked against `kafka_jars.txt`, kept.

A jar comes into the cache by one rename, after its SHA-256 was found right: what is there is whole.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import requests
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import MavenContext, PythonResolver

from alpha_pulse.embedded.errors import DownloadError
from alpha_pulse.embedded.progress import OnProgress, StartProgress

KAFKA_VERSION = "4.3.1"
PINS = Path(__file__).with_name("kafka_jars.txt")
ATTEMPTS_MAX = 3
PARALLEL_MAX = 4
TIMEOUT_S = 20


@dataclass(frozen=True)
class Jar:
    """One pinned jar."""

    sha256: str
    size_bytes: int
    coordinate: str  # group:artifact:version

    @property
    def filename(self) -> str:
        """Name of the file in Maven repositories and in the cache."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"

    def is_whole(self, path: Path) -> bool:
        """Tell whether a file is exactly this jar."""
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except OSError:
            return False


def pinned_jars() -> list[Jar]:
    """Return the jars that this Kafka consists of, in class path order."""
    rows = [line.split() for line in PINS.read_text().splitlines() if not line.startswith("#")]
    return [Jar(sha256, int(size), coordinate) for sha256, size, coordinate in rows]


def default_cache_dir() -> Path:
    """Return the user's cache directory of this project."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "alpha-pulse"


def fetch_jars(
    jars: list[Jar],
    cache_dir: Path,
    on_progress: OnProgress,
    *,
    repository_url: str = MAVEN_CENTRAL_URL,
) -> list[Path]:
    """Return the paths of all jars, fetching those that the cache lacks. Blocks.

    on_progress: called from several threads, one at a time.
    Raises: DownloadError; jars that arrived whole before it stay in the cache.
    """
    directory = cache_dir / f"kafka-{KAFKA_VERSION}"
    paths = [directory / jar.filename for jar in jars]
    with ThreadPoolExecutor(PARALLEL_MAX) as pool:
        if all(pool.map(Jar.is_whole, jars, paths)):
            return paths
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _only_one(directory), tempfile.TemporaryDirectory(dir=directory) as staging:
            missing = [jar for jar, path in zip(jars, paths, strict=True) if not jar.is_whole(path)]
            _check_disk(directory, missing)
            _fetch(missing, directory, Path(staging), repository_url, on_progress)
    except OSError as error:
        raise DownloadError(
            f"expected to store Kafka in {directory}, found: {error}; free some disk there or "
            f"set XDG_CACHE_HOME to another directory"
        ) from error
    return paths


@contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    # Two first starts at once: the second waits, then finds everything there.
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check_disk(directory: Path, missing: list[Jar]) -> None:
    needed_bytes = sum(jar.size_bytes for jar in missing) + 16 * 1024 * 1024
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < needed_bytes:
        raise DownloadError(
            f"expected {needed_bytes / 1e6:.0f} MB of free disk for Kafka in {directory}, found "
            f"{free_bytes / 1e6:.0f} MB; free some, or set XDG_CACHE_HOME to another directory"
        )


def _fetch(
    missing: list[Jar],
    directory: Path,
    staging: Path,
    repository_url: str,
    on_progress: OnProgress,
) -> None:
    total_bytes = sum(jar.size_bytes for jar in missing)
    done_bytes = 0
    lock = threading.Lock()

    def count(chunk_bytes: int) -> None:
        nonlocal done_bytes
        with lock:
            done_bytes += chunk_bytes
            on_progress(
                StartProgress(
                    stage="download",
                    message=f"fetching Apache Kafka {KAFKA_VERSION}",
                    done_bytes=min(done_bytes, total_bytes),  # a retry counts twice
                    total_bytes=total_bytes,
                )
            )

    @contextmanager
    def jgo_progress(_filename: str, _size: int) -> Iterator[object]:
        yield count

    resolver = PythonResolver(progress_callback=jgo_progress)
    context = MavenContext(
        resolver=resolver,
        repo_cache=staging,
        remote_repos={"jars": repository_url},
        timeout=TIMEOUT_S,
    )
    with ThreadPoolExecutor(PARALLEL_MAX) as pool:
        fetch = partial(_fetch_one, context, directory, repository_url)
        futures = [pool.submit(fetch, jar) for jar in missing]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch_one(context: MavenContext, directory: Path, repository_url: str, jar: Jar) -> None:
    group, artifact_id, version = jar.coordinate.split(":")
    artifact = context.project(group, artifact_id).at_version(version).artifact()
    found = ""
    for _ in range(ATTEMPTS_MAX):
        try:
            staged = context.resolver.download(artifact)
            assert staged is not None
            if jar.is_whole(staged):
                os.replace(staged, directory / jar.filename)
                return
            found = "a file with another SHA-256"
        # jgo reports a missing jar as RuntimeError; requests' errors are OSErrors.
        except (requests.RequestException, RuntimeError) as error:
            found = str(error)
        assert artifact.cached_path is not None
        artifact.cached_path.unlink(missing_ok=True)  # what is partial is never used
    raise DownloadError(
        f"expected {jar.filename} from {repository_url}, found: {found}; check the network "
        f"(HTTPS_PROXY is honoured) and start again, what has arrived is kept; or set "
        f"ALPHA_PULSE_KAFKA to a Kafka of your own"
    )
