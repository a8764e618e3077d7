"""The ClickHouse engine on this machine: one process, behind ClickHouse's HTTP interface."""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from alpha_pulse.embedded.child import Child
from alpha_pulse.embedded.errors import EmbeddedRuntimeError
from alpha_pulse.embedded.front.users import Login, Role, load_users, save_users, url_of
from alpha_pulse.embedded.ports import HOST, listen

DEFAULT_PORT = 8123
READY_TIMEOUT_S = 120.0
STOP_GRACE_S = 10.0


class ClickHouseServer:
    """The engine's files and, once started, its process."""

    def __init__(
        self,
        directory: Path,
        lock_fd: int,
        logins: Sequence[Login] = (),
        users_file: Path | None = None,
        certificate_file: Path | None = None,
    ) -> None:
        self.directory = directory
        self.port = 0
        self.child: Child | None = None
        self._lock_fd = lock_fd
        self._logins = logins
        self._given_users_file = users_file
        self._certificate_file = certificate_file  # PEM, key and chain: HTTPS instead of HTTP

    @property
    def address(self) -> str:
        """Base URL, with the first administrator's name and password where it has any."""
        url = self._base_url()
        administrators = [login for login in self._logins if login.role is Role.ADMIN]
        if any(login.name == "default" and not login.password for login in administrators):
            return url  # who says no name is `default`
        return url_of(url, administrators[0]) if administrators else url

    async def start(self, port: int | None) -> None:
        """Start the engine and return when it answers.

        Raises: PortError, ChildDiedError, EmbeddedRuntimeError when it does not answer in time.
        """
        with listen(port, DEFAULT_PORT, "ClickHouse") as listener:
            self.port = listener.getsockname()[1]
            self.directory.mkdir(parents=True, exist_ok=True)
            self.child = Child.start(
                "ClickHouse",
                [
                    sys.executable,
                    "-m",
                    "alpha_pulse.embedded.front.server",
                    str(self.directory / "data"),
                    str(listener.fileno()),
                    *self._users_file(),
                    *self._certificate(),
                ],
                log=self.directory / "server.log",
                keep_fds=[self._lock_fd, listener.fileno()],
                grace_s=STOP_GRACE_S,
            )
        try:
            await self._wait_until_ready()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the engine in order."""
        if self.child is not None:
            await self.child.stop(STOP_GRACE_S + 5)

    def _base_url(self) -> str:
        scheme = "https" if self._certificate_file else "http"
        return f"{scheme}://{HOST}:{self.port}"

    def _certificate(self) -> list[str]:
        if self._certificate_file is None:
            return []
        return ["--certificate", str(self._certificate_file.resolve())]

    def _users_file(self) -> list[str]:
        if self._given_users_file is not None:
            load_users(self._given_users_file)  # a mistake is told here, before anything starts
            return ["--users", str(self._given_users_file.resolve())]
        if not self._logins:
            return []
        path = self.directory / "users.toml"
        save_users(path, self._logins)
        return ["--users", str(path)]

    async def _wait_until_ready(self) -> None:
        # The socket listens from the first moment, so one request waits until the engine is up.
        assert self.child is not None
        deadline = time.monotonic() + READY_TIMEOUT_S
        async with aiohttp.ClientSession() as session:
            ping = asyncio.create_task(self._ping(session))
            try:
                while not (ping.done() and ping.result()):
                    if self.child.exit_code is not None:
                        raise self.child.death()
                    if time.monotonic() > deadline:
                        raise EmbeddedRuntimeError(
                            f"expected ClickHouse to answer on {HOST}:{self.port} within "
                            f"{READY_TIMEOUT_S:.0f} s, found no answer; is the machine overloaded? "
                            f"Its log: {self.child.log}\n{self.child.log_tail()}"
                        )
                    if ping.done():
                        ping = asyncio.create_task(self._ping(session))
                    await asyncio.wait([ping], timeout=0.05)
            finally:
                ping.cancel()

    async def _ping(self, session: aiohttp.ClientSession) -> bool:
        timeout = aiohttp.ClientTimeout(total=READY_TIMEOUT_S)
        try:
            # Only whether it is up: who it is, its clients verify.
            async with session.get(
                f"{self._base_url()}/ping", timeout=timeout, ssl=False
            ) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            await asyncio.sleep(0.05)
            return False
