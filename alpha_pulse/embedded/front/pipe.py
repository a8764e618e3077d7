"""Results that the engine writes in one go: read from a pipe while it writes.

For formats whose pieces cannot be joined (JSON, Parquet, Pretty). The engine writes into a file
that INTO OUTFILE names; here that file is the end of a pipe, so memory stays bounded and a slow
reader holds the engine back.
"""

import fcntl
import os
import re
import threading
from typing import Any

PIPE_BYTES = 1024 * 1024
_END = re.compile(
    rb"(?P<format>\bFORMAT\s+\w+)?(?P<settings>\s+SETTINGS\s+[\w\s=.,']+?)?[\s;]*\Z", re.IGNORECASE
)


class ResultPipe:
    """One query that writes its result into a pipe, on a thread of its own."""

    def __init__(self, handle: Any, text: bytes, format_name: str, params: dict[str, str]) -> None:
        self._handle = handle
        self._params = params
        self._read_fd, self._write_fd = os.pipe()
        fcntl.fcntl(self._write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._text = redirected(text, f"/proc/self/fd/{self._write_fd}", format_name)
        self.result: Any = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="result-pipe", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Tell whether the engine still writes."""
        return self._thread.is_alive()

    def read(self) -> bytes:
        """Return the next bytes, none at the end.

        Raises: the engine's error, once all it wrote before has been read.
        """
        content = os.read(self._read_fd, PIPE_BYTES)
        if not content:
            self._thread.join()
            if self.error is not None:
                raise self.error
        return content

    def drain(self, timeout_s: float) -> None:
        """Throw away what is written, for a while or until the end."""
        self._thread.join(timeout_s)
        os.set_blocking(self._read_fd, False)
        try:
            while os.read(self._read_fd, PIPE_BYTES):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close the pipe; the engine does not write any more."""
        os.close(self._read_fd)

    def _run(self) -> None:
        try:
            self.result = self._handle.query(self._text, "Null", params=self._params)
        except (RuntimeError, ValueError) as error:
            self.error = error
        finally:
            os.close(self._write_fd)


def redirected(text: bytes, path: str, format_name: str) -> bytes:
    """Return a query with its result sent to a path in place of the client."""
    found = _END.search(text)
    assert found is not None  # it matches the empty end
    head, end = text[: found.start()], text[found.start() :].rstrip(b"; \t\r\n")
    target = f"\nINTO OUTFILE '{path}' TRUNCATE ".encode()
    if found["format"] is None:
        return head + end + target + f"FORMAT {format_name}".encode()
    return head + target + end
