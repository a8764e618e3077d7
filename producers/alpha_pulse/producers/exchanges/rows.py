"""Rows of a REST answer: each stands for itself, so that a bad one costs only itself."""

from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from alpha_pulse.producers.exchanges.tick import SHOWN_MAX, FrameError

EventT = TypeVar("EventT")


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that breaks its contract. payload: the row as JSON."""

    payload: bytes
    error: FrameError


def read_rows(
    rows: Any,
    kind: Any,
    make: Callable[[Any], EventT],
    refused: MutableSequence[RefusedRow],
    *,
    strict: bool = True,
) -> list[EventT]:
    """Return what the rows of an answer are, in their order.

    Args:
        rows: the answer's list, as JSON is decoded.
        kind: what a row looks like.
        make: returns a row's event, or raises FrameError.
        refused: rows that are none are appended here.
        strict: whether numbers must not be written as text.

    Raises:
        ValidationError: the answer is no list of rows at all.
    """
    whole: Any = list[kind]
    try:
        return [make(row) for row in msgspec.convert(rows, whole, strict=strict)]
    except (FrameError, msgspec.ValidationError, ValueError):
        pass  # row by row only now: whole answers are the rule, and cheaper
    found: list[EventT] = []
    for row in msgspec.convert(rows, list[Any]):
        try:
            found.append(make(msgspec.convert(row, kind, strict=strict)))
        except FrameError as error:
            refused.append(RefusedRow(msgspec.json.encode(row), error))
        except (msgspec.ValidationError, ValueError) as error:
            wrong = FrameError(f"expected a row, found {str(error)[:SHOWN_MAX]}", "bad_row")
            refused.append(RefusedRow(msgspec.json.encode(row), wrong))
    return found
