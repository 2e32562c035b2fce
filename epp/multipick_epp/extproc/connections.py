"""What connections to a port may cost, whichever server has it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Connections:
    """None of it ends a connection that has a stream, as long as its other side lives."""

    most: int = 4096  # an Envoy keeps one a worker thread; what comes beyond is closed at once, or a silent one for it
    handshake_s: float = 5.0  # from its acceptance until the client's HTTP/2 settings are there and ours acknowledged
    idle_s: float = 120.0  # without a stream
    ping_s: float = 60.0  # quiet for so long, it is asked for a sign of life ...
    pong_s: float = 20.0  # ... and closed without one
