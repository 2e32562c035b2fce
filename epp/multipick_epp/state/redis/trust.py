"""How well each endpoint is known at this moment: what its owner says of it, as long as that can be known to be true.

An owner says `exact` of an index that it keeps. So the word holds only while we hear what it writes, and while it is
there to write it. All of that is judged by this process's own clock, from what it has seen.
"""

from collections.abc import Callable, Mapping
from typing import Final

from multipick_epp.state.index import LocalIndex
from multipick_epp.state.redis.leases import ALIVE_S, Leases
from multipick_epp.types import Endpoint, Mode

HEARD_S: Final = 1.5
"""So old may be what we know of the log. In a quiet pool we hear of it twice a second."""


class Trust:
    """Invariant: the index has of each endpoint the mode that was right when `judge` was last called; nothing of that
    changes by time alone before `_until`.
    """

    def __init__(self, index: LocalIndex, clock: Callable[[], float]) -> None:
        self._index = index
        self._clock = clock
        self._leases = Leases()
        self._said: dict[Endpoint, Mode] = {}
        self._holders: dict[Endpoint, bytes] = {}
        self._renewed: dict[bytes, float] = {}  # when each owner was last seen to renew its lease
        self._heard = float("-inf")
        self._until = float("inf")
        self._writable = True

    # --- what is heard

    def says(self, endpoint: Endpoint, mode: Mode) -> None:
        """What the owner says of the endpoint."""
        self._said[endpoint] = mode
        self._judge(endpoint, self._clock())

    def holds(self, endpoint: Endpoint, owner: bytes) -> None:
        """Who has just taken the endpoint over. Of one without an owner (an older version's) the word alone counts."""
        self._holders[endpoint] = owner
        now = self._clock()
        if now - self._heard < HEARD_S:  # else it may be old news
            self._renewed[owner] = now
        self._judge_all()

    def dropped(self, endpoint: Endpoint) -> None:
        """The endpoint is gone."""
        self._said.pop(endpoint, None)
        self._holders.pop(endpoint, None)

    def loaded(self, said: Mapping[Endpoint, Mode], holders: Mapping[Endpoint, bytes]) -> None:
        """All that the store knows. Of what it has forgotten there may be an old index, until it is told anew."""
        forgotten = dict.fromkeys(self._said, Mode.APPROX)
        self._said, self._holders = {**forgotten, **said}, dict(holders)
        self._judge_all()

    def heard(self) -> None:
        """The index is what the log says by now."""
        before, self._heard = self._heard, self._clock()
        if self._heard - before >= HEARD_S:
            self._judge_all()

    def lost(self) -> None:
        """We hear nothing any more; what was seen of the owners may be over when we do."""
        self._heard = float("-inf")
        self._forget_owners()

    def saw(self, stamps: Mapping[bytes, bytes]) -> None:
        """The leases of all who ingest."""
        now = self._clock()
        self._leases.see(stamps, now)
        before, self._renewed = self._renewed, self._leases.alive(self._renewed, now)
        if before.keys() != self._renewed.keys():
            self._judge_all()

    # --- what is made of it

    @property
    def settled(self) -> bool:
        """Every word that is to be heard counts: the owners are there, and we hear them."""
        now = self._clock()
        return all(self._keeps_its_word(endpoint, now) for endpoint, mode in self._said.items() if mode is Mode.EXACT)

    def judge(self, writable: bool = True) -> None:
        """Bring the index's modes up to the moment. Costs nothing as long as nothing changes.

        Not `writable`: the store refuses our writes, so it refuses the owners' too, until they are seen to renew again.
        """
        if writable is not self._writable:
            self._writable = writable
            self._forget_owners()
        elif self._clock() >= self._until:
            self._judge_all()

    def _forget_owners(self) -> None:
        """Each is to be seen to renew its lease again."""
        self._leases = Leases()
        self._renewed.clear()
        self._judge_all()

    def _judge_all(self) -> None:
        now = self._clock()
        for endpoint in list(self._said):
            self._judge(endpoint, now)
        ends = [at + ALIVE_S for at in self._renewed.values() if at + ALIVE_S > now]
        if self._heard + HEARD_S > now:
            ends.append(self._heard + HEARD_S)
        self._until = min(ends, default=float("inf"))

    def _judge(self, endpoint: Endpoint, now: float) -> None:
        mode = self._said.get(endpoint)
        if mode is None:
            return
        if mode is Mode.EXACT and not self._keeps_its_word(endpoint, now):
            mode = Mode.APPROX
        if mode is not self._index.mode(endpoint):
            self._index.set_mode(endpoint, mode)

    def _keeps_its_word(self, endpoint: Endpoint, now: float) -> bool:
        owner = self._holders.get(endpoint)
        alive = self._writable if owner is None else now - self._renewed.get(owner, float("-inf")) < ALIVE_S
        return alive and now - self._heard < HEARD_S
