"""What a start reports while it runs, and how a person sees it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn


@dataclass(frozen=True, kw_only=True)
class StartProgress:
    """One step of a start: `download` carries bytes, the others only their message."""

    stage: Literal["wait", "download", "format", "start", "ready"]
    message: str
    done_bytes: int = 0
    total_bytes: int = 0


OnProgress = Callable[[StartProgress], None]


@contextmanager
def console_progress(stream: TextIO | None = None) -> Iterator[OnProgress]:
    """Yield a callback that shows a start: a bar on a terminal, plain lines elsewhere.

    stream: standard error when none is given, so that standard output stays for results.
    """
    stream = stream or sys.stderr
    console = Console(file=stream)
    if not console.is_terminal:
        yield _PlainLines(stream)
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task("", total=None, visible=False)

    def show(step: StartProgress) -> None:
        if step.stage == "download":
            bar.update(
                task,
                description=step.message,
                completed=step.done_bytes,
                total=step.total_bytes,
                visible=True,
            )
        else:
            bar.update(task, visible=False)
            console.print(step.message, style="dim", highlight=False)

    with bar:
        yield show


class _PlainLines:
    # A log file wants a few lines, not one for every chunk: each quarter of a download is enough.

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._quarter = -1

    def __call__(self, step: StartProgress) -> None:
        text = step.message
        if step.stage == "download":
            quarter = 4 * step.done_bytes // max(step.total_bytes, 1)
            if quarter == self._quarter:
                return
            self._quarter = quarter
            text += f": {step.done_bytes / 1e6:.1f} of {step.total_bytes / 1e6:.1f} MB"
        print(text, file=self._stream, flush=True)
