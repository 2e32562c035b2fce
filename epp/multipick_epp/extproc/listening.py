"""The socket of a port that gateways connect to."""

import socket
from typing import Final

BACKLOG: Final = 1024


def listening(host: str, port: int) -> socket.socket:
    """It listens already; port 0 leaves the port to the system. Raises RuntimeError where it can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        raise RuntimeError(f"can't listen on {host}, port {port}: {error.strerror or error}") from error
