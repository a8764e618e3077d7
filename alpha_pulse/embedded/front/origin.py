"""Keeps web pages out: a page that a person visits must not reach a server on their machine.

A browser says where a request comes from (Origin, Sec-Fetch-Site), and a page that points its own
name at 127.0.0.1 still sends that name as Host. Programs send neither, and an address as Host.
"""

import ipaddress

from aiohttp import web


def check_origin(http: web.Request) -> None:
    """Refuse a request that a web page made.

    Raises: HTTPForbidden.
    """
    site = http.headers.get("Sec-Fetch-Site", "none")
    if "Origin" in http.headers or site not in ("none", "same-origin"):
        raise web.HTTPForbidden(text="requests of web pages are not answered here\n")
    if not _is_own(http.headers.get("Host", "localhost")):
        raise web.HTTPForbidden(text="expected localhost or an address as Host\n")


def _is_own(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and ":" in host else host
    name = name.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
