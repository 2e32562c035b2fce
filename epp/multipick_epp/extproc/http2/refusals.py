"""Connections that a port cut: told in the log, and which they were of late, for who asks how the picker does."""

import logging
from collections.abc import Callable, Mapping
from typing import Final

from multipick_epp.extproc.http2.protocol import Refusal

log = logging.getLogger(__name__)

LATELY_S: Final = 300.0
"""So long a refusal is remembered: well above the two minutes after which the operator asks a healthy pool again."""

_LOG_EVERY_S: Final = 60.0
_REMEDY: Final = {
    Refusal.TLS_ON_PLAINTEXT: "a client speaks TLS, and this port doesn't: set listen.tls.mode to self-signed or"
    " files, or tell the gateway to use plaintext",
    Refusal.PLAINTEXT_ON_TLS: "a client speaks plaintext HTTP/2, and this port wants TLS: tell the gateway to use TLS,"
    " or set listen.tls.mode to off",
    Refusal.TLS_FAILED: "TLS failed: look at versions, at whom the client trusts (an alert is what it said), and at"
    " listen.tls.client_ca if it is set",
    Refusal.NOT_HTTP2: "a client doesn't speak HTTP/2: this port is for gRPC",
    Refusal.PROTOCOL: "a client broke the rules of HTTP/2",
    Refusal.FLOOD: "a client asks for too much that carries nothing, and was cut off",
    Refusal.SILENT: "a client was silent for too long, in a handshake, amid a frame or when asked for a sign of life",
    Refusal.TOO_MANY: "too many connections",
}


class Refusals:
    """Of one port."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: dict[Refusal, tuple[float, str]] = {}  # of each kind: when, and whose connection
        self._logged: dict[Refusal, float] = {}

    def note(self, why: Refusal, peer: str, detail: str) -> None:
        """One more; of each kind one a minute is logged, with what helps."""
        now = self._clock()
        self._last[why] = (now, peer)
        if now - self._logged.get(why, -_LOG_EVERY_S) >= _LOG_EVERY_S:
            self._logged[why] = now
            told = {"reason": str(why), "peer": peer} | ({"detail": detail} if detail else {})
            log.warning("a connection was refused: %s", _REMEDY[why], extra=told)

    @property
    def lately(self) -> Mapping[str, str]:
        """Kinds of the last LATELY_S, each with the address of the last peer."""
        now = self._clock()
        return {str(why): peer for why, (when, peer) in self._last.items() if now - when < LATELY_S}
