"""The result of one look."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was found and, where it is not well, what to do next."""

    name: str
    verdict: Verdict
    found: str
    next: str = ""


def ok(name: str, found: str) -> Check:
    """Return that all is well."""
    return Check(name, "ok", found)


def warning(name: str, found: str, then: str) -> Check:
    """Return that it works, but not as it should."""
    return Check(name, "warning", found, then)


def failure(name: str, found: str, then: str) -> Check:
    """Return that the pipeline can't work like this."""
    return Check(name, "failure", found, then)
