"""The subscription to one endpoint's publisher, wherever that is found."""

import asyncio
import logging
from collections.abc import Callable

import zmq

from multipick_epp.engines import EngineClient
from multipick_epp.events.discover import Addresses, FeedSpec, NoEvents, Ports, Unreachable, discover
from multipick_epp.events.link import Context
from multipick_epp.events.source import Sink, Source

log = logging.getLogger(__name__)

_RETRY_S = (0.5, 10.0)  # first and longest pause before an engine is asked for its ports again
WHY_CHARS = 200

After = Callable[[str], tuple[int, int] | None]
"""From a publisher's address to number and digest of the batch that one may go on from; None: from none."""


class Subscription:
    """Hands on what the present source makes of the messages; what was counted of those before it stays counted."""

    def __init__(self, spec: FeedSpec, sink: Sink, activity: Callable[[], None], after: After) -> None:
        """`activity` is called after each wake-up."""
        self.spec = spec
        self.source: Source | None = None
        self.why = "not asked yet"  # there are no events; "" where there are
        self._sink = sink
        self._activity = activity
        self._after = after
        self._gaps = 0
        self._malformed = 0

    @property
    def connected(self) -> bool:
        """To the publisher, now."""
        return self.source is not None and self.source.connected

    @property
    def gaps(self) -> int:
        """Times that batches were missing."""
        return self._gaps + (self.source.sequence.gaps if self.source else 0)

    @property
    def malformed(self) -> int:
        """Messages without a number and a payload."""
        return self._malformed + (self.source.malformed if self.source else 0)

    async def keep_up(self, context: Context, engines: EngineClient, ports: Ports) -> None:
        """Find the publisher. Also later: an engine that was started again may publish elsewhere."""
        followed: Addresses | None = None
        pause_s, longest_s = _RETRY_S
        while True:
            if self.source and self.source.failure:
                self.say(f"subscription failed: {self.source.failure}")
                self._leave()
                followed = None
            elif not self.connected:
                try:
                    found = await discover(engines, self.spec, ports)
                    if isinstance(found, NoEvents):
                        self.say(found.reason)
                    elif found != followed:
                        followed = None
                        self.open(context, found)
                        followed = found
                except Unreachable as error:
                    self.say(f"unreachable: {error}")
                except zmq.ZMQError as error:
                    self.say(f"no subscription: {error}")
                except Exception as error:
                    log.exception("subscription failed", extra={"endpoint": self.spec.endpoint})
                    self.say(f"failed: {type(error).__name__}: {error}")
            else:
                self.why = ""  # the socket may have found its way back by itself
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    def open(self, context: Context, addresses: Addresses) -> None:
        """Subscribe there instead. Raises zmq.ZMQError."""
        self._leave()
        after = self._after(addresses.events)
        self.source = Source(context, addresses.events, addresses.replay, self._sink, self._activity, after)
        self.why = ""

    def close(self) -> None:
        """Listen no longer. What was heard can still be asked for."""
        if self.source:
            self.source.close()

    def say(self, why: str) -> None:
        """There are no events."""
        why = why[:WHY_CHARS]
        if why != self.why:
            log.info("no events", extra={"endpoint": self.spec.endpoint, "why": why})
        self.why = why

    def _leave(self) -> None:
        source, self.source = self.source, None
        if source:
            source.close()
            self._gaps += source.sequence.gaps
            self._malformed += source.malformed
