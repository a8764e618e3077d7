"""The pages of a role: `/metrics`, `/healthz` and `/readyz`, in the role's own event loop.

That they are answered at all shows that the loop beats. Nothing of a role depends on them: without
a free port it works on and says so.
"""

import asyncio
import contextlib
import ipaddress
import platform
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from alpha_pulse.contracts.config import MetricsConfig
from alpha_pulse.contracts.roles.metrics.metric import (
    BUILD_INFO,
    COMMON,
    LOOP_DELAY,
    READY,
    Metric,
    Readings,
    Values,
)

# Several workers on one machine take the role's port, the next one, and so on.
PORTS_OF_A_ROLE = 10
BEAT_S = 0.5
CLOSE_S_MAX = 0.5

Check = Callable[[], str]  # "" when all is well, else what is not


class Monitor:
    """What a role shows of itself.

    Attributes:
        registry: its metrics.
        checks: by name, what must hold for the role to be ready.
        port: where the pages are; 0 while nothing listens.
    """

    def __init__(self, role: str, *, loopback_only: bool = True) -> None:
        self.role = role
        self.registry = CollectorRegistry()
        self.checks: dict[str, Check] = {}
        self.port = 0  # 0 while nothing listens
        self._loopback_only = loopback_only
        self._loop_delay_s = 0.0
        self.registry.register(Readings(COMMON, self._read))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def problems(self) -> dict[str, str]:
        """Return each check with what is wrong, "" where nothing is."""
        found = {}
        for name, check in self.checks.items():
            try:
                found[name] = check()
            except Exception as error:
                # A check that fails must not hide the others.
                found[name] = f"{type(error).__name__}: {error}"
        return found

    def application(self) -> web.Application:
        """Return the three pages."""
        pages = web.Application(middlewares=[self._guard])
        pages.router.add_get("/metrics", self._metrics)
        pages.router.add_get("/healthz", self._healthz)
        pages.router.add_get("/readyz", self._readyz)
        return pages

    async def beat(self) -> None:
        """Measure for ever how late the loop wakes."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self._loop_delay_s = max(0.0, loop.time() - due_s)

    def _read(self) -> Mapping[Metric, Values]:
        build = (self.role, version("alpha-pulse-contracts"), platform.python_version())
        ready: Values = {(name,): float(not problem) for name, problem in self.problems().items()}
        return {BUILD_INFO: {build: 1.0}, READY: ready, LOOP_DELAY: {(): self._loop_delay_s}}

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], object]
    ) -> web.StreamResponse:
        # A web page that somebody visits must not read this through its visitor's browser.
        if "Origin" in request.headers or (self._loopback_only and not _is_local(request.host)):
            return web.Response(status=403, text="only for programs on this machine\n")
        response = await handler(request)  # type: ignore[misc]
        assert isinstance(response, web.StreamResponse)
        return response

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _healthz(self, request: web.Request) -> web.Response:
        return _json(200, {"role": self.role, "alive": True})

    async def _readyz(self, request: web.Request) -> web.Response:
        problems = self.problems()
        ready = not any(problems.values())
        checks = {name: problem or "ok" for name, problem in problems.items()}
        return _json(200 if ready else 503, {"role": self.role, "ready": ready, "checks": checks})


def lag_problem(settings: MetricsConfig, lag: Mapping[Any, int]) -> str:
    """Return that a role is too far behind to be called ready, "" when it is not."""
    behind = sum(lag.values())
    if behind <= settings.ready_lag_records_max:
        return ""
    return f"{behind} records behind, more than {settings.ready_lag_records_max}"


@contextlib.asynccontextmanager
async def monitored(
    settings: MetricsConfig, monitor: Monitor, port: int, log: Any
) -> AsyncIterator[Monitor]:
    """Serve a role's pages as long as the block lasts.

    Args:
        settings: whether, and on which host.
        monitor: what the pages show.
        port: the first that is tried; 0 for any free one.
        log: the role's own (structlog); it says once where the pages are, or that there are none.

    Yields:
        The monitor, its `port` set.
    """
    if not settings.enabled:
        yield monitor
        return
    monitor._loopback_only = _is_local(settings.host)
    # Nothing is logged of requests: scrapes come every few seconds.
    runner = web.AppRunner(
        monitor.application(), access_log=None, handle_signals=False, shutdown_timeout=CLOSE_S_MAX
    )
    await runner.setup()
    beating = asyncio.create_task(monitor.beat())
    try:
        monitor.port = await _listen(runner, settings.host, port)
        if monitor.port:
            log.info("metrics.served", host=settings.host, port=monitor.port)
        else:
            log.warning("metrics.unserved", host=settings.host, port=port)
        yield monitor
    finally:
        beating.cancel()
        monitor.port = 0
        await asyncio.gather(beating, return_exceptions=True)
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> int:
    candidates = range(port, port + PORTS_OF_A_ROLE) if port else (0,)
    for candidate in candidates:
        # Not reusable: two workers on one port would answer each other's scrapes.
        site = web.TCPSite(runner, host, candidate, reuse_address=True, reuse_port=False)
        with contextlib.suppress(OSError):
            await site.start()
            return int(runner.addresses[-1][1])
    return 0


def _is_local(host: str) -> bool:
    """Return whether a host, or a Host header with its port, names this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _json(status: int, body: object) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(body) + b"\n", content_type="application/json"
    )
