"""Ports on loopback."""

import socket

from alpha_pulse.embedded.errors import PortError

HOST = "127.0.0.1"


def listen(port: int | None, default: int, name: str) -> socket.socket:
    """Return a socket that listens on loopback, for a child to inherit: nobody can come between.

    port: None for `default`, or any free one where that is taken; 0 for any free one.
    Raises: PortError when the port that was asked for is taken.
    """
    for candidate in (default, 0) if port is None else (port,):
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, candidate))
            server.listen(256)
            return server
        except OSError as error:
            server.close()
            if candidate == port:
                raise PortError(
                    f"expected port {port} of {HOST} to be free for {name}, found: "
                    f"{error.strerror}; choose another one, or none to get a free one"
                ) from error
    raise AssertionError("port 0 is always free")


def free_port(port: int | None, default: int, name: str) -> int:
    """Return a port as `listen` would choose it; it may be taken again before it is used."""
    with listen(port, default, name) as server:
        return int(server.getsockname()[1])
