"""What `make audit` makes of pip-audit's answer."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def audit() -> Any:
    path = Path(__file__).parents[2] / ".ci" / "audit.py"
    spec = importlib.util.spec_from_file_location("audit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLEAN = {"name": "msgspec", "version": "0.22.0", "vulns": []}
UNKNOWN = {"name": "aiokafka", "skip_reason": "not found"}
HURT = {
    "name": "aiohttp",
    "version": "3.0",
    "vulns": [{"id": "PYSEC-1-1", "aliases": ["CVE-1-1"], "fix_versions": ["3.1"]}],
}


def test_a_finding_fails_and_names_the_version_that_mends_it(audit: Any) -> None:
    code, lines = audit.verdict([CLEAN, HURT, HURT], set())
    assert code == 1
    assert lines == [
        "aiohttp 3.0: PYSEC-1-1, fixed in 3.1",
        "audit: 3 packages, 1 findings that are not explained",
    ]


def test_a_finding_that_is_explained_passes_by_any_of_its_names(audit: Any) -> None:
    assert audit.verdict([HURT], {"CVE-1-1"})[0] == 0
    assert audit.verdict([HURT], {"PYSEC-1-1"})[0] == 0


def test_what_could_not_be_asked_is_never_called_clean(audit: Any) -> None:
    code, lines = audit.verdict([UNKNOWN, UNKNOWN], set())
    assert code == 0
    assert len(lines) == 1
    assert "SKIPPED 2 of 2" in lines[0]
    assert "SKIPPED 1 of 2" in audit.verdict([UNKNOWN, CLEAN], set())[1][-1]
