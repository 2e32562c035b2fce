"""Clients that say no more before their headers are answered: these can't be withheld until the body is there.

Either has to be decided by its headers, in full duplex; in other modes the gateway itself decides when headers go on.
"""

from collections.abc import Mapping


def expects_continue(headers: Mapping[str, str]) -> bool:
    """`Expect: 100-continue` (RFC 9110, section 10.1.1), which a gateway may leave to the endpoint; names are lower
    case.
    """
    return "expect" in headers and "100-continue" in headers["expect"].lower()


def upgrades(headers: Mapping[str, str]) -> bool:
    """What follows is no body: an upgrade such as a WebSocket (RFC 9110, 7.8; RFC 6455), or a tunnel: over HTTP/2 and
    HTTP/3 that is how WebSockets begin (RFC 8441, RFC 9220). A request other than GET has its body before it upgrades.
    """
    method = headers.get(":method")
    asks = "upgrade" in headers and "upgrade" in headers.get("connection", "").lower()
    return method == "CONNECT" or (method == "GET" and asks)
