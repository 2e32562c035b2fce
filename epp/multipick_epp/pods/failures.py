"""What is seen of endpoints that fail -> who is left out, in all pickers: `outliers` decides, the registry obeys.

By address: the ranks behind one port are one server, and fail together.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from functools import partial
from typing import Protocol

from multipick_epp.pods.outliers import Outliers, Signal
from multipick_epp.pods.registry import Registry
from multipick_epp.types import Endpoint, address_of

log = logging.getLogger(__name__)

NOT_FOUND = 404
NOT_IMPLEMENTED = 501
"""What engines say to what they can't do for anybody: of 5xx, the one that is a client's doing."""
_FIRST_ERROR, _FIRST_OF_THE_SERVER = 400, 500
PATHS_AT_MOST = 64
"""Of the pool that are remembered: where its engines take any prefix, clients make them up."""


class Asked(Enum):
    """What a request asked for, as far as it was read."""

    OWN_MODEL = auto()  # which every endpoint of the pool has
    OTHER_MODEL = auto()  # an adapter, which some may have; or a name that the client made up
    UNKNOWN = auto()  # its body was not read, or its path is none that we know


class Shared(Protocol):
    """The part of `State` by which pickers tell each other."""

    def announce(self, endpoint: Endpoint, level: int) -> None: ...  # noqa: D102

    def on_announced(self, listener: Callable[[Endpoint, int], None]) -> None: ...  # noqa: D102

    def on_remembered(self, listener: Callable[[Endpoint, int], None]) -> None: ...  # noqa: D102


class Failures:
    """Keeps the registry's endpoints that are left out true to what was seen of them.

    Invariant: `_paths` has those on which the pool's own model was served, the first `PATHS_AT_MOST`.
    """

    def __init__(
        self, registry: Registry, shared: Shared, doubt: Callable[[Endpoint], None], clock: Callable[[], float]
    ) -> None:
        """`doubt`: this address may not serve the adapter that was asked of it. `clock`: monotonic seconds."""
        self._registry = registry
        self._shared = shared
        self._doubt = doubt
        self._outliers = Outliers(clock)
        self._obeyed = 0  # the changes that the registry knows of
        self._paths: set[str] = set()
        shared.on_announced(self._learn)
        shared.on_remembered(self._remember)
        registry.on_gone(self.forget)
        registry.on_anew(self._began_anew)

    @property
    def left_out(self) -> Mapping[Endpoint, int]:
        """Addresses of the pool that are left out now, and how often in a row. Where nobody else is ready, none is."""
        rest = {*self._registry.addresses()}.difference(map(address_of, self._registry.ready().endpoints))
        return {address: level for address, level in self._outliers.left_out().items() if address in rest}

    @property
    def strangers(self) -> Sequence[Endpoint]:
        """Addresses that stood as left out when we connected, and that the pool does not have."""
        pool = self._registry.addresses()
        return [address for address in self._outliers.known() if address not in pool]

    @property
    def ejections(self) -> int:
        """Times that this picker left one out."""
        return self._outliers.ejections

    def picked(self, endpoint: Endpoint) -> None:
        """A request is on its way there."""
        if self._outliers.picked(address_of(endpoint)):
            self._obey()

    def answered(self, endpoint: Endpoint, status: int, asked: Asked, path: str) -> None:
        """A request there was answered.

        A client's own 4xx says nothing of the endpoint; a 404 for the pool's own model does, on a path that the pool
        was seen to have: embeddings of a pool that only chats are 404 everywhere.
        """
        address, path = address_of(endpoint), path.partition("?")[0]
        if status == NOT_FOUND and asked is Asked.OTHER_MODEL:
            self._doubt(address)
        if status < _FIRST_ERROR:
            if asked is Asked.OWN_MODEL and len(self._paths) < PATHS_AT_MOST:
                self._paths.add(path)
            self._tell(address, self._outliers.succeeded)
        elif (status >= _FIRST_OF_THE_SERVER and status != NOT_IMPLEMENTED) or (
            status == NOT_FOUND and asked is Asked.OWN_MODEL and path in self._paths
        ):
            self._tell(address, self._outliers.failed)
        else:
            self.undecided(address)

    def passed_over(self, endpoint: Endpoint) -> None:
        """The gateway could not reach it, and went elsewhere."""
        self._tell(endpoint, self._outliers.failed)

    def undecided(self, endpoint: Endpoint) -> None:
        """A request there ended, and says nothing of the endpoint."""
        self._tell(endpoint, self._outliers.undecided)

    def looked(self, address: Endpoint, reached: bool) -> None:
        """Its metrics were asked for."""
        tell = self._outliers.succeeded if reached else self._outliers.failed
        self._tell(address, partial(tell, signal=Signal.LOOK))

    def forget(self, endpoint: Endpoint) -> None:
        """It left the pool; unless it is but one of several ranks, or has come back."""
        address = address_of(endpoint)
        if address not in self._registry.addresses() and self._outliers.forget(address):
            self._shared.announce(address, 0)

    def tick(self) -> None:
        """Time has passed: pauses end."""
        self._obey(pauses=True)

    def _tell(self, endpoint: Endpoint, tell: Callable[[Endpoint], int | None]) -> None:
        """Tell `outliers` something, unless the endpoint has left the pool meanwhile: nobody would forget it again."""
        address = address_of(endpoint)
        if address not in self._registry.addresses():
            return
        level = tell(address)
        if level is not None:
            self._shared.announce(address, level)
            if level:
                log.warning("endpoint left out: its requests fail", extra={"endpoint": address, "time_in_a_row": level})
            else:
                log.info("endpoint back", extra={"endpoint": address})
        self._obey()

    def _learn(self, address: Endpoint, level: int) -> None:
        self._tell(address, partial(self._outliers.learn, level=level))

    def _remember(self, address: Endpoint, level: int) -> None:
        if not self._outliers.left_out().get(address):
            self._outliers.remember(address, level)
            self._obey()

    def _began_anew(self, address: Endpoint) -> None:
        self._outliers.began_anew(address)
        self._obey()

    def _obey(self, pauses: bool = False) -> None:
        """`pauses`: also where nothing happened, but a pause may have ended."""
        if pauses or self._outliers.changes != self._obeyed:
            self._registry.leave_out(self._outliers.left_out().keys())
            self._obeyed = self._outliers.changes


def failures(registry: Registry, shared: Shared, doubt: Callable[[Endpoint], None]) -> Failures:
    """As a picker has them."""
    return Failures(registry, shared, doubt, time.monotonic)
