"""Where a sink goes on in a Kafka partition, and which records are stored already. Pure."""

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from alpha_pulse.contracts.errors import StorageError

Range = tuple[int, int]  # first and last offset, both included

_TOKEN = re.compile(r"(?P<batch>.+:\d+):(?P<first>\d+)-(?P<last>\d+):(?P<generation>\d+)")


class TopicRecreated(StorageError):
    """The table holds offsets beyond the topic's end: the topic is not the one it was."""


class KnownOffsets:
    """Offsets that need no insert: they are in the table or were skipped for a recorded reason."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in sorted(ranges):
            if self._lasts and first <= self._lasts[-1] + 1:
                self._lasts[-1] = max(self._lasts[-1], last)
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    @property
    def end(self) -> int:
        """Offset after the last known one; 0 when none is known."""
        return self._lasts[-1] + 1 if self._lasts else 0

    @property
    def ranges(self) -> list[Range]:
        """The known offsets, ascending, apart from each other."""
        return list(zip(self._firsts, self._lasts, strict=True))

    def __contains__(self, offset: int) -> bool:
        index = bisect_right(self._firsts, offset) - 1
        return index >= 0 and offset <= self._lasts[index]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where reading starts, what is stored already, and what Kafka deleted before it was stored."""

    start: int
    known: KnownOffsets
    lost: Range | None


def plan(
    where: str,
    *,
    settled_before: int | None,
    known: KnownOffsets,
    log_start: int,
    log_end: int,
) -> Plan:
    """Return how to go on in a partition that holds offsets `[log_start, log_end)`.

    Args:
        where: topic and partition, for the message.
        settled_before: every earlier offset is stored or skipped; None without a progress row.
        known: stored and skipped offsets from there on.
        log_start: first offset that Kafka still has.
        log_end: offset after the last.

    Raises:
        TopicRecreated: the table is beyond the topic's end.
    """
    beyond = max(settled_before or 0, known.end)
    if beyond > log_end:
        raise TopicRecreated(
            f"expected {where} to reach at least offset {beyond}, up to which it is stored, found "
            f"its end at {log_end}: the topic was deleted and recreated. Begin a new epoch with "
            f"`python -m alpha_pulse.sinks --begin-epoch {where.rsplit(' ', 1)[0]}`; what is "
            "stored stays"
        )
    if settled_before is None:
        # A fresh table: what the topic still has is all there is to have. With rows but no
        # progress, reading starts at the earliest too, and what is stored is passed over.
        return Plan(log_start, known, _hole(known, log_start) if known.end else None)
    lost = _lost(settled_before, log_start, known)
    return Plan(max(settled_before, log_start), known, lost)


def announced_range(token: str, name: str, partition: int, generation: int) -> Range | None:
    """Return the offsets of an announced batch; None when it is of another life of the topic."""
    found = _TOKEN.fullmatch(token)
    if found is None or found["batch"] != f"{name}:{partition}":
        return None
    if int(found["generation"]) != generation:
        return None
    return int(found["first"]), int(found["last"])


def _hole(known: KnownOffsets, log_start: int) -> Range | None:
    first = known.ranges[0][0]
    return _lost(first, log_start, known)


def _lost(start: int, log_start: int, known: KnownOffsets) -> Range | None:
    """Return the span of `[start, log_start)` from its first to its last unknown offset."""
    if start >= log_start:
        return None
    first, last = start, log_start - 1
    for known_first, known_last in known.ranges:
        if known_first <= first <= known_last:
            first = known_last + 1
        if known_first <= last <= known_last:
            last = known_first - 1
    return (first, last) if first <= last else None
