"""`MemoryState`: the state of a pool with one picker, and of the simulator."""

import time
from collections.abc import Callable, Mapping, Sequence

from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.fence import Fence
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.ledger import Ledger, with_equal_prompt
from multipick_epp.state.protocol import Applied, Candidates, Context, Delta, EqualPrompt, LoadColumns, Reserved
from multipick_epp.state.stats import StateStats
from multipick_epp.state.succession import Notes, Tenure
from multipick_epp.types import BlockKey, Endpoint, Load, Mode, ReservationId


class MemoryState:
    """`State` within one process: nothing is awaited, nothing outlives it.

    `clock` gives the seconds by which optimistic entries expire; `medium_weights` what a cached token on a medium other
    than the GPU is worth (absent: nothing).
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, medium_weights: Mapping[str, float] | None = None
    ) -> None:
        self.stats = StateStats()
        self.index = LocalIndex(medium_weights or {}, self.stats)
        self._clock = clock
        self._fences: dict[Endpoint, Fence] = {}
        self._ledger = Ledger()

    async def start(self) -> None:
        """Nothing to connect to."""

    async def settled(self) -> None:
        """It always is."""

    async def close(self) -> None:
        """Forget the reservations, as a replica does that ends."""
        self._ledger = Ledger()

    @property
    def degraded(self) -> str | None:
        """Never: this process is the truth."""
        return None

    @property
    def alone(self) -> bool:
        """Always."""
        return True

    # --- index

    async def take_over(self, endpoint: Endpoint) -> Tenure | None:
        """See `State`. There is nothing to inherit: no owner outlives this process."""
        fence = self._fences.get(endpoint)
        if fence is None:
            fence = self._fences[endpoint] = Fence(0)
        fence.epoch += 1
        mode = self.index.mode(endpoint)
        if mode is Mode.EXACT:
            self.index.set_mode(endpoint, mode := Mode.APPROX)
        return Tenure(fence.epoch, fence.last, mode, None)

    async def apply(self, deltas: Sequence[Delta]) -> Sequence[Applied]:
        """See `State`."""
        outcome = [self._apply(delta) for delta in deltas]
        self.stats.applied.update(outcome)
        return outcome

    async def note(self, endpoint: Endpoint, epoch: int, notes: Notes) -> Applied:
        """Nobody will read it."""
        return self._told_by(endpoint, epoch)

    async def clear(self, endpoint: Endpoint, epoch: int, seq: int, medium: str | None = None) -> Applied:
        """See `State`."""
        fence = self._fences.get(endpoint)
        applied, emptied = fence.clear(epoch, seq, medium) if fence else (Applied.GAP, [])
        for cache in emptied:
            self.index.void(cache)
        self.stats.applied[applied] += 1
        return applied

    async def replace(
        self, endpoint: Endpoint, epoch: int, seq: int, contents: Mapping[Cache, Sequence[BlockKey]]
    ) -> Applied:
        """See `State`."""
        fence = self._fences.get(endpoint)
        if fence is not None and epoch != fence.epoch:
            return Applied.STALE
        self._fences[endpoint] = Fence(epoch, seq, seq, dict.fromkeys(contents, seq))
        self.index.drop_caches(endpoint)
        for cache, keys in contents.items():
            self.index.change(cache, keys, ())
        return Applied.NEW

    async def drop(self, endpoint: Endpoint) -> None:
        """See `State`."""
        self._fences.pop(endpoint, None)
        self._ledger.drop(endpoint)
        self.index.drop(endpoint)

    def expect(
        self,
        endpoint: Endpoint,
        block_size: int,
        keys: Sequence[BlockKey],
        ttl_s: float,
        owner: ReservationId | None = None,
    ) -> None:
        """See `State`."""
        self.index.expect(endpoint, block_size, keys, self._clock() + ttl_s, owner)

    def withdraw(self, endpoint: Endpoint, owner: ReservationId) -> Sequence[BlockKey]:
        """See `State`."""
        return self.index.withdraw(owner)

    async def set_mode(self, endpoint: Endpoint, epoch: int, mode: Mode) -> Applied:
        """See `State`."""
        applied = self._told_by(endpoint, epoch)
        if applied is Applied.NEW:
            self.index.set_mode(endpoint, mode)
        return applied

    def mode(self, endpoint: Endpoint) -> Mode:
        """See `State`."""
        return self.index.mode(endpoint)

    @property
    def mode_changes(self) -> int:
        """See `State`."""
        return self.index.mode_changes

    def block_size(self, endpoint: Endpoint) -> int | None:
        """See `State`."""
        return self.index.block_size(endpoint)

    def block_sizes(self) -> Mapping[int, int]:
        """See `State`."""
        return self.index.block_sizes()

    def hits(self, chains: Chains) -> Mapping[Endpoint, int]:
        """See `State`."""
        self.index.expire(self._clock())
        return self.index.hits(chains)

    def on_stored(self, listener: Callable[[Endpoint, Sequence[BlockKey]], None]) -> None:
        """See `State`."""
        self.index.listeners.append(listener)

    def owned(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """All: there is no other replica."""
        return endpoints

    async def retire(self) -> bool:
        """There is no other replica."""
        return False

    def on_lost(self, listener: Callable[[Endpoint], None]) -> None:
        """Nothing is ever lost here: what this process holds is the truth."""

    def _told_by(self, endpoint: Endpoint, epoch: int) -> Applied:
        """Whether that is the owner's epoch."""
        fence = self._fences.get(endpoint)
        return Applied.GAP if fence is None else Applied.NEW if fence.epoch == epoch else Applied.STALE

    def _apply(self, delta: Delta) -> Applied:
        fence = self._fences.get(delta.cache.endpoint)
        if fence is None:
            return Applied.GAP
        applied = fence.delta(delta.cache, delta.epoch, delta.first, delta.last)
        if applied in (Applied.NEW, Applied.GAP):
            self.index.change(delta.cache, delta.stored, delta.removed)
        return applied

    def on_routed_elsewhere(self, listener: Callable[[Endpoint, Sequence[BlockKey]], None]) -> None:
        """See `State`; there are no other replicas."""

    def on_withdrawn_elsewhere(self, listener: Callable[[Endpoint, Sequence[BlockKey]], None]) -> None:
        """See `State`; there are no other replicas."""

    # --- outliers: there are no other replicas to tell, or to hear of

    def announce(self, endpoint: Endpoint, level: int) -> None:
        """See `State`."""

    def on_announced(self, listener: Callable[[Endpoint, int], None]) -> None:
        """See `State`."""

    def on_remembered(self, listener: Callable[[Endpoint, int], None]) -> None:
        """See `State`."""

    # --- loads

    def load(self, endpoint: Endpoint) -> Load:
        """See `State`."""
        return self._ledger.load(endpoint)

    def loads(self, endpoints: Sequence[Endpoint]) -> Sequence[Load]:
        """See `State`."""
        return self._ledger.loads_of(endpoints)

    def load_columns(self, endpoints: Sequence[Endpoint]) -> LoadColumns:
        """See `State`."""
        return self._ledger.columns(endpoints)

    async def reserve(
        self,
        reservation: ReservationId,
        candidates: Candidates,
        equal_prompt: EqualPrompt | None = None,
        context: Context | None = None,
    ) -> Reserved:
        """See `State`."""
        if equal_prompt is not None:
            candidates = with_equal_prompt(candidates, equal_prompt, self.index.holders(equal_prompt.key))
        return self._ledger.reserve(reservation, candidates, self._ledger.loads_of, context)

    def progress(self, reservation: ReservationId, queued_tokens: int) -> None:
        """See `State`."""
        self._ledger.progress(reservation, queued_tokens)

    def recharge(self, reservation: ReservationId, queued_tokens: int) -> None:
        """See `State`."""
        self._ledger.recharge(reservation, queued_tokens)

    def move(self, reservation: ReservationId, endpoint: Endpoint) -> None:
        """See `State`."""
        self._ledger.move(reservation, endpoint)

    def release(self, reservation: ReservationId) -> None:
        """See `State`."""
        self._ledger.release(reservation)
