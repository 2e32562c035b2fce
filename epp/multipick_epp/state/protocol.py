"""`State`: the one face of the index and the loads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

import msgspec

from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.succession import Notes, Tenure
from multipick_epp.types import BlockKey, Endpoint, Load, Mode, ReservationId


class Applied(IntEnum):
    """What became of a delta. The numbers are the Redis scripts' return codes."""

    REFUSED = -2  # the store is away, full, or the endpoint has too many caches: nothing written
    STALE = -1  # somebody else has taken the endpoint over: nothing written
    DUPLICATE = 0  # all of it was known: nothing written
    NEW = 1
    GAP = 2  # written, but something before it is missing: only `replace` makes the endpoint exact again


@dataclass(frozen=True, slots=True)
class Delta:
    """Blocks that came to and left a cache by the events of batches `first` to `last`; `epoch` is its writer's.

    The last operation on a key wins, so no key is in both. Of any size: `apply` writes it in steps of 512 operations
    (docs/state.md), and only the last step advances the cache's sequence. So one delta a cache and batch: a second
    one with the same `last` would count as a duplicate. Sequences are the endpoint's, and go on from epoch to epoch;
    batches without blocks need no delta, but the next delta's `first` has to cover them.
    """

    cache: Cache
    epoch: int
    first: int
    last: int
    stored: Sequence[BlockKey] = ()
    removed: Sequence[BlockKey] = ()


class Candidates(NamedTuple):
    """Endpoints that a request may go to, as columns: a decision has sixteen, and no time for so many objects."""

    endpoints: Sequence[Endpoint]
    new_tokens: Sequence[int]  # prompt tokens each would have to prefill; at least 1
    # Tokens and requests there that no reservation explains (they bypassed the pickers); both empty: none.
    unexplained_queued: Sequence[int] = ()
    unexplained_in_flight: Sequence[int] = ()


class EqualPrompt(NamedTuple):
    """A prompt whose equal may have gone to a candidate a moment ago, before the caller could have heard of it."""

    key: BlockKey  # of the last block that can hit
    new_tokens: int  # what a candidate that gets, or has, an equal prompt would have to prefill; at least 1


class Marginal(NamedTuple):
    """What the whole pool adds to the score of policy `marginal`, by the caller's view: see `policy.marginal`."""

    price: int  # of a new token, in tokens: 1 + z
    least_traffic: float  # the least M, tokens


class Context(NamedTuple):
    """The prompt of a reserve, to be accounted for beside its new tokens: policy `marginal` weighs contexts.

    Who has no use for that saves the store's time, and the request's context counts as none.
    """

    prompt_tokens: int  # at least 1
    marginal: Marginal | None = None  # None: the candidates' scores are LMETRIC's


class LoadColumns(NamedTuple):
    """The loads of some endpoints, in their order."""

    queued_tokens: Sequence[int]
    in_flight: Sequence[int]
    context_tokens: Sequence[int]
    prefilling: Sequence[int]


class Reserved(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a reserve: the winner was charged `new_tokens` and one request."""

    index: int  # the winner's place among the candidates
    new_tokens: int  # fewer than the candidate's where an equal prompt went there just before
    load: Load  # the winner's before the charge, without contexts


class Index(Protocol):
    """What `events/` writes: which endpoint holds which blocks. One owner writes an endpoint at a time."""

    async def start(self) -> None:
        """Connect, load the index, take a lease. Returns when lookups can be trusted, or the truth is unreachable."""

    async def close(self) -> None:
        """Release what this replica reserved, give up its lease, end the background tasks."""

    @property
    def degraded(self) -> str | None:
        """Why this replica goes by its own view alone ("away", "slow", ...); None while the shared truth answers."""

    async def take_over(self, endpoint: Endpoint) -> Tenure | None:
        """Become the one who writes this endpoint: whoever did before is fenced off. What is known of it stays.

        Waits until it is known whether he is alive: what a dead one said last does not stand. None where the shared
        truth is away: nothing has changed.
        """

    async def apply(self, deltas: Sequence[Delta]) -> Sequence[Applied]:
        """Write what events changed, in order; fenced by epoch and deduplicated by sequence. Never raises."""

    async def clear(self, endpoint: Endpoint, epoch: int, seq: int, medium: str | None = None) -> Applied:
        """The engine dropped its whole cache (of one medium, or of all) in batch `seq` of `epoch`.

        Blocks that the same batch stored afterwards come in a delta whose `first` is `seq`; what came before belongs
        into one whose `last` is below `seq`.
        """

    async def note(self, endpoint: Endpoint, epoch: int, notes: Notes) -> Applied:
        """What a successor needs to go on from what has been written until now. Never raises.

        Whatever else is written voids the position that was noted before. So it is to be called in the same breath as
        the writes that it belongs to, without waiting for them: what is torn between them can't be inherited.
        """

    async def replace(
        self, endpoint: Endpoint, epoch: int, seq: int, contents: Mapping[Cache, Sequence[BlockKey]]
    ) -> Applied:
        """The whole truth of an endpoint as of batch `seq` of `epoch`: what the index held of it before is void.

        `seq` is -1 where no batch has come yet. Fenced by epoch only. The answer to `GAP` and to `on_lost`.
        """

    async def drop(self, endpoint: Endpoint) -> None:
        """The endpoint is gone for good: forget its cache and its load."""

    async def set_mode(self, endpoint: Endpoint, epoch: int, mode: Mode) -> Applied:
        """How well this endpoint's cache is known from now on; every replica learns it. Before the first: BLIND."""

    def owned(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """Those of `endpoints` whose events this replica has to ingest now: rendezvous hashing over the live leases.

        Changes at most a few seconds after a replica came or went; while the truth is away, the last answer holds.
        """

    async def retire(self) -> bool:
        """This replica takes no part in the ingest any more: the others take over what it owns, at once.

        It may go on writing what they have not taken over yet. False where there are no others.
        """

    def on_lost(self, listener: Callable[[Endpoint], None]) -> None:
        """Call `listener` with each endpoint that this replica wrote and that the shared truth no longer has exactly.

        (The store lost its data, or refused writes.) The owner answers with `replace`.
        """


class State(Index, Protocol):
    """Index, loads and leases of one pool.

    Methods that are not async return at once: those that ask read a mirror that trails the shared truth by
    milliseconds, those that tell (`expect`, `progress`, `move`, `release`) change the local view now and the shared
    truth soon, in the order of the calls.
    """

    async def settled(self) -> None:
        """Returns when each endpoint that is known exactly has an owner that is there; after some seconds anyway."""

    @property
    def alone(self) -> bool:
        """Nobody else makes reservations now, as the shared truth says: a reserve need not ask it first."""

    # --- index: read by the picker

    def expect(
        self,
        endpoint: Endpoint,
        block_size: int,
        keys: Sequence[BlockKey],
        ttl_s: float,
        owner: ReservationId | None = None,
    ) -> None:
        """A prompt was routed: count `keys` as resident, for every replica, until stored for real or `ttl_s` passes.

        Or until they are withdrawn by `owner`, the prompt's reservation; without one they can't be.
        """

    def withdraw(self, endpoint: Endpoint, owner: ReservationId) -> Sequence[BlockKey]:
        """The endpoint won't compute what was expected for this reservation: it counts as resident no more, for any
        replica. What was stored for real, or is expected for another reservation, too, stays.

        Returns all keys that were expected for this one and not stored.
        """

    def mode(self, endpoint: Endpoint) -> Mode:
        """What the last `set_mode` said of it, by any replica."""

    @property
    def mode_changes(self) -> int:
        """Grows with each change of any endpoint's mode: what was looked up before may lack what is known since."""

    def block_size(self, endpoint: Endpoint) -> int | None:
        """Tokens a block of its full-attention GPU cache; None before it has one."""

    def hits(self, chains: Chains) -> Mapping[Endpoint, int]:
        """Leading prompt tokens that each endpoint holds; those that hold none are left out."""

    def block_sizes(self) -> Mapping[int, int]:
        """The block sizes of the known caches, and how many engines have each: all ranks of one have one vote."""

    def on_stored(self, listener: Callable[[Endpoint, Sequence[BlockKey]], None]) -> None:
        """Call `listener` with each batch of keys that came to an endpoint's GPU cache (full-attention groups)."""

    def on_routed_elsewhere(self, listener: Callable[[Endpoint, Sequence[BlockKey]], None]) -> None:
        """Call `listener` with the keys of each prompt that a replica with a smaller name than ours has routed.

        Two replicas that route equal prompts to an endpoint at the same moment charge it for both, although the engine
        computes the blocks once. The one that hears this and waits for the same blocks may take its charge back.
        """

    def on_withdrawn_elsewhere(self, listener: Callable[[Endpoint, Sequence[BlockKey]], None]) -> None:
        """Call `listener` with the keys of each prompt that another replica withdrew and that were not stored: who
        waits for them to be computed for that prompt waits in vain.
        """

    # --- outliers: who is left out

    def announce(self, endpoint: Endpoint, level: int) -> None:
        """This picker leaves the endpoint out, for the `level`-th time in a row; 0: it is back, or left the pool."""

    def on_announced(self, listener: Callable[[Endpoint, int], None]) -> None:
        """Call `listener` with what other replicas announce."""

    def on_remembered(self, listener: Callable[[Endpoint, int], None]) -> None:
        """Call `listener` with what stood announced when this replica connected."""

    # --- loads: written and read by the picker

    def load(self, endpoint: Endpoint) -> Load:
        """The local view of one endpoint's load."""

    def loads(self, endpoints: Sequence[Endpoint]) -> Sequence[Load]:
        """The same of many, in their order."""

    def load_columns(self, endpoints: Sequence[Endpoint]) -> LoadColumns:
        """The same as columns: a decision over 256 endpoints has no time for 256 calls.

        To ask again for the very same sequence costs least.
        """

    async def reserve(
        self,
        reservation: ReservationId,
        candidates: Candidates,
        equal_prompt: EqualPrompt | None = None,
        context: Context | None = None,
    ) -> Reserved:
        """Atomically take the candidate with the smallest score, the first of equals.

        That is LMETRIC's, (queued + new) x (in flight + 1), unless `context` says `marginal`:
        (queued + new x price) x (context + (in flight + 1) x prompt + least traffic), where requests that no
        reservation explains are taken to be as long as this one. Callers shuffle equals.
        A reservation id that is known already is not charged twice: the same outcome again.
        With `equal_prompt`, a candidate to which any replica has reserved an equal prompt counts as holding it: else
        those of a burst of equal prompts that know of one such candidate would all crowd there.
        Raises ValueError where there are no candidates.
        """

    def progress(self, reservation: ReservationId, queued_tokens: int) -> None:
        """Of the reserved tokens only `queued_tokens` are still to be prefilled. Never raises the figure."""

    def recharge(self, reservation: ReservationId, queued_tokens: int) -> None:
        """So many tokens are to be prefilled after all, on the endpoint that the reservation is charged to: perhaps
        more than before, since that endpoint lacks what another had, or since who was to bring the blocks is gone.
        """

    def move(self, reservation: ReservationId, endpoint: Endpoint) -> None:
        """Another endpoint served the request: what is left of the charge moves there."""

    def release(self, reservation: ReservationId) -> None:
        """The request ended: take back its charge. Unknown reservations are ignored."""
