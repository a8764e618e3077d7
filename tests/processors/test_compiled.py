"""Where compiled code is kept, and the two instructions that Python has no words for."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alpha_pulse.contracts import market
from alpha_pulse.processors.wire.compiler import _cache_dir, compiled, copy_bytes, read_eight
from tests.patience import PATIENCE_S


def test_what_is_compiled_is_kept_under_a_digest_of_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = Path(_cache_dir(""))
    assert kept.is_dir()
    assert kept.parent == tmp_path / "alpha-pulse" / "compiled"
    assert Path(_cache_dir("")) == kept
    # numba would not see that a function which another file's function calls has changed.
    changed = tmp_path / "market.py"
    changed.write_text(Path(market.__file__).read_text() + "# changed\n")
    monkeypatch.setattr(market, "__file__", str(changed))
    assert Path(_cache_dir("")) != kept


def test_without_a_place_to_keep_it_every_start_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert _cache_dir("") == ""
    assert _cache_dir("/dev/null/cache") == ""
    # A whole start: a function that nobody compiled before, and no file of it anywhere.
    code = """
from alpha_pulse.processors.compiled import numbers
assert numbers.eight_digits(0x3030303030303030) is True
assert type(numbers.eight_digits._cache).__name__ == "NullCache"
"""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    for nowhere in ({}, {"NUMBA_CACHE_DIR": "/dev/null/cache"}):
        subprocess.run(
            [sys.executable, "-c", code], check=True, env=environment | nowhere, timeout=PATIENCE_S
        )


def test_a_directory_that_somebody_named_holds_it_by_digest_too(tmp_path: Path) -> None:
    kept = Path(_cache_dir(str(tmp_path / "named")))
    assert kept.is_dir()
    assert kept.parent == tmp_path / "named"
    assert kept.name == Path(_cache_dir("")).name


def test_eight_bytes_are_read_from_any_place() -> None:
    text = np.frombuffer(bytes(range(1, 12)), np.uint8)

    @compiled
    def read(text: object, at: int) -> int:
        return int(read_eight(text, at))

    for at in range(4):
        assert read(text, at) == int.from_bytes(bytes(range(at + 1, at + 9)), "little")


def test_bytes_are_copied_and_nothing_beside_them() -> None:
    source, target = np.frombuffer(b"0123456789", np.uint8), np.zeros(10, np.uint8)

    @compiled
    def copy(target: object, at: int, source: object, source_at: int, size: int) -> None:
        copy_bytes(target, at, source, source_at, size)

    copy(target, 3, source, 5, 4)
    assert target.tobytes() == b"\0\0\0005678\0\0\0"
    copy(target, 0, source, 0, 0)
    assert target.tobytes() == b"\0\0\0005678\0\0\0"
