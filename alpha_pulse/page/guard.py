"""Who is answered, and what a browser may do with the answer."""

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from alpha_pulse.contracts.errors import StorageError, ValidationError

SECURITY_HEADERS = {
    # Plotly writes style elements; nothing comes from anywhere else.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@web.middleware
async def guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Keep other web pages out, tell errors as JSON, and say what a browser may do with it all."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    is_foreign = site not in ("none", "same-origin") and request.path != "/"
    if is_foreign or origin not in (None, f"http://{request.host}"):
        raise web.HTTPForbidden(text="other web pages are not answered here\n")
    if not _is_local(request.host):
        # A name of somebody else's that points at this machine.
        raise web.HTTPForbidden(text="expected localhost or 127.0.0.1 as Host\n")
    try:
        response = await handler(request)
    except ValidationError as error:
        response = json_answer({"error": str(error)}, status=400)
    except StorageError as error:
        response = json_answer({"error": str(error)}, status=503)
    if not response.prepared:
        response.headers.update(SECURITY_HEADERS)
    return response


def _is_local(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def json_answer(body: dict[str, Any], status: int = 200) -> web.Response:
    """Return a body that nobody keeps."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
