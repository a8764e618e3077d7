"""The HTTP server: `python -m alpha_pulse.embedded.front.server DIRECTORY LISTENING_FD`.

`--users FILE` names who may come in, `--certificate FILE` (PEM: key and chain) makes it HTTPS.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from aiohttp import web

from alpha_pulse.embedded.front.answer import Answer
from alpha_pulse.embedded.front.engine import Engine
from alpha_pulse.embedded.front.failures import (
    QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
    TIMEOUT_EXCEEDED,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    QueryFailure,
)
from alpha_pulse.embedded.front.origin import check_origin
from alpha_pulse.embedded.front.query import Query
from alpha_pulse.embedded.front.request import read_request, with_tags_of
from alpha_pulse.embedded.front.users import User, Users, load_users

BODY_BYTES_MAX = 256 * 1024 * 1024
BODIES_BYTES_MAX = 1024 * 1024 * 1024  # of all requests together
BODY_TIMEOUT_S = 300.0
QUERIES_AT_ONCE_MAX = 64
URL_BYTES_MAX = 1024 * 1024
KILL_EVERY_S = 0.1


class Front:
    """Answers HTTP requests from the engine."""

    def __init__(self, engine: Engine, users: Users) -> None:
        self._engine = engine
        self._users = users
        self._threads = ThreadPoolExecutor(QUERIES_AT_ONCE_MAX, thread_name_prefix="query")
        self._running: dict[str, tuple[Query, User]] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._bodies_bytes = 0

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.router.add_get("/ping", self._ping)
        application.router.add_get("/replicas_status", self._ping)
        application.router.add_route("*", "/", self._root)
        application.router.add_route("*", "/query", self._root)
        return application

    async def close(self) -> None:
        """Stop what still runs and wait for it."""
        for query, _ in self._running.values():
            query.cancel()
        while self._endings:
            await asyncio.wait(self._endings)
        self._threads.shutdown()

    async def _ping(self, http: web.Request) -> web.Response:
        check_origin(http)
        return web.Response(text="Ok.\n", content_type="text/html")

    async def _root(self, http: web.Request) -> web.StreamResponse:
        check_origin(http)
        headers = {
            "X-ClickHouse-Server-Display-Name": "embedded",
            "X-ClickHouse-Timezone": self._engine.timezone,
        }
        if http.method in ("GET", "HEAD") and "query" not in http.query:
            return web.Response(text="Ok.\n", headers=headers)
        # A body of unknown length is counted as a usual one.
        unknown_bytes = BODY_BYTES_MAX // 16 if http.body_exists else 0
        size_bytes = unknown_bytes if http.content_length is None else http.content_length
        try:
            if self._bodies_bytes + size_bytes > BODIES_BYTES_MAX:
                raise QueryFailure(
                    TOO_MANY_SIMULTANEOUS_QUERIES,
                    f"expected at most {BODIES_BYTES_MAX} bytes in the bodies of all requests, "
                    f"found more; retry a little later",
                )
            self._bodies_bytes += size_bytes
            try:
                return await self._query(http, headers)
            finally:
                self._bodies_bytes -= size_bytes
        except QueryFailure as failure:
            headers["X-ClickHouse-Exception-Code"] = str(failure.code)
            if failure.status == 401:
                headers["WWW-Authenticate"] = 'Basic realm="ClickHouse"'
            text = failure.text(self._engine.version) + "\n"
            return web.Response(text=text, status=failure.status, headers=headers)

    async def _query(self, http: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                request = await read_request(http, BODY_BYTES_MAX)
        except TimeoutError as error:
            raise QueryFailure(
                TIMEOUT_EXCEEDED, f"expected the whole request within {BODY_TIMEOUT_S:.0f} s"
            ) from error
        headers["X-ClickHouse-Query-Id"] = request.query_id
        user = self._users.authenticate(request.user, request.password)
        tags = {name: query.tag for name, (query, _) in self._running.items()}
        query = Query(self._engine, with_tags_of(request, tags), user.role)
        self._admit(query, user)
        end = partial(self._end, query)
        answer = Answer(http, query, self._threads, headers, self._engine.version, end)
        try:
            response = await answer.send()
        except asyncio.CancelledError:  # the client has gone, or we stop
            self._end_later(query, answer)
            raise
        except BaseException:
            await self._end(query)
            raise
        if answer.is_running:  # the client has stalled
            self._end_later(query, answer)
        else:
            await self._end(query)
        return response

    def _admit(self, query: Query, user: User) -> None:
        if query.request.query_id in self._running:
            raise QueryFailure(
                QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
                f"Query with id = {query.request.query_id} is already running.",
            )
        of_user = sum(other.name == user.name for _, other in self._running.values())
        if len(self._running) >= QUERIES_AT_ONCE_MAX or of_user >= user.queries_at_once_max:
            raise QueryFailure(
                TOO_MANY_SIMULTANEOUS_QUERIES,
                f"Too many simultaneous queries: {of_user} of {user.name}, {len(self._running)} "
                f"in all; retry a little later",
            )
        self._running[query.request.query_id] = (query, user)

    async def _end(self, query: Query) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, query.close)
        finally:
            self._running.pop(query.request.query_id, None)

    def _end_later(self, query: Query, answer: Answer) -> None:
        # A read is stopped at once; a write is left to end, as a server does.
        async def end() -> None:
            while answer.is_running:
                if query.is_read_only:
                    await asyncio.to_thread(query.cancel)
                await answer.wait(KILL_EVERY_S)
            await self._end(query)

        task = asyncio.get_running_loop().create_task(end())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)


async def serve(
    directory: Path, listener: socket.socket, users: Users, tls: ssl.SSLContext | None = None
) -> None:
    """Serve until SIGTERM."""
    engine = await asyncio.to_thread(Engine, directory)
    front = Front(engine, users)
    runner = web.AppRunner(
        front.application(),
        access_log=None,
        handler_cancellation=True,
        max_line_size=URL_BYTES_MAX,
        max_field_size=64 * 1024,
        shutdown_timeout=2.0,
    )
    await runner.setup()
    await web.SockSite(runner, listener, ssl_context=tls).start()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await runner.cleanup()
    await front.close()
    with contextlib.suppress(Exception):
        await asyncio.to_thread(engine.close)


def main(arguments: list[str]) -> None:
    """Run the server that the arguments describe."""
    parser = argparse.ArgumentParser(prog="python -m alpha_pulse.embedded.front.server")
    parser.add_argument("directory", type=Path)
    parser.add_argument("listening_fd", type=int)
    parser.add_argument("--users", type=Path)
    parser.add_argument("--certificate", type=Path)
    options = parser.parse_args(arguments)
    users = load_users(options.users) if options.users else []
    tls = None
    if options.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.certificate)
    listener = socket.socket(fileno=options.listening_fd)
    directory = options.directory.resolve()
    # The engine takes a table's name that it does not know for a file here: let it find none.
    empty = directory.parent / "empty"
    empty.mkdir(exist_ok=True)
    os.chdir(empty)
    asyncio.run(serve(directory, listener, Users(users), tls))


if __name__ == "__main__":
    main(sys.argv[1:])
