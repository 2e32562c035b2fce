"""Clients that wait for an answer to their headers before they say more: nothing may be withheld from these."""

from collections.abc import Mapping


def awaits_an_answer(headers: Mapping[str, str]) -> bool:
    """Whether a request with these headers has to be decided by them; names are lower case.

    `Expect: 100-continue` (RFC 9110, section 10.1.1), where a gateway leaves the 100 to the endpoint; an upgrade, of
    which a WebSocket is one (RFC 9110, 7.8; RFC 6455); the same over HTTP/2 and HTTP/3 (RFC 8441, RFC 9220), which some
    gateways show as CONNECT, as they do plain tunnels.
    """
    if "100-continue" in headers.get("expect", "").lower():
        return True
    if headers.get(":method") == "CONNECT":
        return True
    return "upgrade" in headers and "upgrade" in headers.get("connection", "").lower()
