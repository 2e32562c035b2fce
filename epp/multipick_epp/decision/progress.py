"""How far the prefill of each reserved prompt is, as its endpoint's own KV events tell.

An engine stores a prompt's blocks chunk by chunk, in order. When a block of a reserved prompt appears in the index of
its endpoint, that block's tokens and all before them are prefilled, so only the rest is still queued. Sources in order:
events; the first byte of the answer; an estimate from the endpoint's measured prefill rate.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from multipick_epp.decision.awaited import Awaited
from multipick_epp.types import BlockKey, Endpoint, ReservationId


@dataclass(slots=True)
class _Prefill:
    """One reserved prompt that is not prefilled yet."""

    endpoint: Endpoint
    prompt_tokens: int
    block_size: int
    keys: Sequence[BlockKey]  # of all its full blocks
    blocks: dict[BlockKey, int]  # those it waits for: key -> index in the prompt
    pays: int  # it is charged for its blocks from this one on; those before are resident, or others bring them
    left: int  # tokens
    stored: int = 0  # its blocks before this one were stored while we watched


@dataclass(slots=True)
class _Meter:
    """Prefill rate of one endpoint: tokens over the time in which it had any of our prompts to prefill.

    Both sums decay with every sample, so the rate follows the engine's last ten or so.
    """

    pending: int = 0  # prompts being watched there
    since_s: float = 0.0  # the last sample, or the moment the first pending prompt came
    tokens: float = 0.0
    seconds: float = 0.0

    def sample(self, tokens: int, now: float) -> None:
        self.tokens = 0.9 * self.tokens + tokens
        self.seconds = 0.9 * self.seconds + max(now - self.since_s, 1e-4)
        self.since_s = now

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass
class Progress:
    """Watches the prompts that this picker reserved.

    An engine computes a block once, however many prompts wait for it; so one of them is charged for it, and if that one
    goes before the block is stored, the oldest of the others is.

    Invariant: a reservation is in its endpoint's `_awaited` under a key exactly while its prefill has that in `blocks`.
    """

    report: Callable[[ReservationId, int], None]
    """Called with the tokens that are still queued, each time less than before; 0 ends the watch."""
    taken_over: Callable[[ReservationId, Endpoint, int, Sequence[BlockKey], int], None]
    """Called with the blocks (size, keys) that a prompt has to bring after all, and the tokens that are queued now."""
    clock: Callable[[], float]
    """Seconds, monotonic."""
    _prefills: dict[ReservationId, _Prefill] = field(default_factory=dict)  # oldest first
    _awaited: defaultdict[Endpoint, Awaited] = field(default_factory=lambda: defaultdict(Awaited))
    _meters: defaultdict[Endpoint, _Meter] = field(default_factory=lambda: defaultdict(_Meter))

    def watch(
        self,
        reservation: ReservationId,
        endpoint: Endpoint,
        prompt_tokens: int,
        block_size: int,
        keys: Sequence[BlockKey],
        hit_tokens: int,
    ) -> None:
        """A prompt was reserved on `endpoint`: `keys` are those of all its full blocks, `hit_tokens` are resident.

        Of prompts that were decided at the same time, none knew that another brings the same blocks there. The engine
        computes them once, so only the first is charged for them: this is reported at once.
        """
        first = hit_tokens // block_size if keys else 0
        blocks = dict(zip(keys[first:], range(first, len(keys)), strict=True))
        awaited = self._awaited[endpoint]
        brought = awaited.leading(blocks)
        charged = prompt_tokens - hit_tokens
        left = max(min(1, charged), charged - brought * block_size)
        self._prefills[reservation] = _Prefill(endpoint, prompt_tokens, block_size, keys, blocks, first + brought, left)
        awaited.add(reservation, blocks)
        meter = self._meters[endpoint]
        if not meter.pending:
            meter.since_s = self.clock()
        meter.pending += 1
        if left < charged:
            self.report(reservation, left)

    def stored(self, endpoint: Endpoint, keys: Sequence[BlockKey]) -> None:
        """Blocks came to the endpoint's cache."""
        for reservation, index in self._reached(endpoint, keys).items():
            prefill = self._prefills[reservation]
            prefill.stored = max(prefill.stored, index + 1)
            done = (index + 1) * prefill.block_size
            last_full_block = prefill.prompt_tokens // prefill.block_size - 1
            # The tail after the last full block is computed with it: a chunk ends short of the prompt only on a budget.
            self._measured(reservation, 0 if index >= last_full_block else prefill.prompt_tokens - done)

    def routed_elsewhere(self, endpoint: Endpoint, keys: Sequence[BlockKey]) -> None:
        """Another picker, which knew nothing of ours, sent a prompt with these blocks there and pays for them."""
        for reservation, index in self._reached(endpoint, keys).items():
            prefill = self._prefills[reservation]
            left = max(1, prefill.prompt_tokens - (index + 1) * prefill.block_size)
            if left < prefill.left:
                prefill.pays = max(prefill.pays, index + 1)
                self._advance(reservation, left)

    def abandon(self, reservation: ReservationId) -> Sequence[BlockKey] | None:
        """The request goes before its prefill was seen to be over: the blocks that it was to bring and did not.

        None where its prefill is over, or was not watched. Who calls this calls `abandoned` with the blocks.
        """
        prefill = self._prefills.get(reservation)
        self.forget(reservation)
        return None if prefill is None else prefill.keys[max(prefill.pays, prefill.stored) :]

    def abandoned(self, endpoint: Endpoint, keys: Iterable[BlockKey]) -> None:
        """Nobody else brings these blocks to the endpoint: the oldest prompts that rely on them do it themselves."""
        lost = set(keys)
        if not lost:
            return
        there = [(each, prefill) for each, prefill in self._prefills.items() if prefill.endpoint == endpoint]
        for _, prefill in there:
            lost.difference_update(prefill.keys[prefill.pays :])
        for reservation, prefill in there:
            relied_on = range(prefill.stored, prefill.pays) if lost else ()
            first = next((index for index in relied_on if prefill.keys[index] in lost), None)
            if first is not None:
                lost.difference_update(prefill.keys[first:])
                self._take_over(reservation, prefill, first)

    def first_byte(self, reservation: ReservationId) -> None:
        """The answer began: nothing of the prompt is queued any more."""
        if reservation in self._prefills:
            self._measured(reservation, 0)

    def forget(self, reservation: ReservationId) -> None:
        """The request ended, or is prefilled."""
        prefill = self._prefills.pop(reservation, None)
        if prefill is None:
            return
        self._meters[prefill.endpoint].pending -= 1
        self._awaited[prefill.endpoint].remove(reservation, prefill.blocks)

    def drop(self, endpoint: Endpoint) -> None:
        """The endpoint is gone: forget its rate and the prompts it was to prefill."""
        for reservation in [r for r, prefill in self._prefills.items() if prefill.endpoint == endpoint]:
            self.forget(reservation)
        self._meters.pop(endpoint, None)
        self._awaited.pop(endpoint, None)

    def prefill_seconds(self, endpoint: Endpoint, tokens: int) -> float | None:
        """How long the endpoint takes to prefill so many tokens, by what was seen of it; None before anything was."""
        meter = self._meters.get(endpoint)
        return tokens / meter.rate if meter and meter.rate else None

    def estimate(self, elapsed_s: float, silent: Callable[[Endpoint], bool]) -> None:
        """Let prompts that no event can tell of advance at the measured rate for `elapsed_s`, the oldest first.

        Those on endpoints that send no events, and everywhere those without a block to wait for: a prompt that was not
        read, the tail of one that hits. Other prompts take their turn of the engine's time, and wait for their events.
        """
        budget: dict[Endpoint, float] = {}
        for reservation, prefill in list(self._prefills.items()):
            endpoint = prefill.endpoint
            if endpoint not in budget:
                budget[endpoint] = self._meters[endpoint].rate * elapsed_s
            done = min(int(budget[endpoint]), prefill.left)
            budget[endpoint] -= done
            if done and (not prefill.blocks or silent(endpoint)):
                self._advance(reservation, prefill.left - done)

    def _reached(self, endpoint: Endpoint, keys: Sequence[BlockKey]) -> dict[ReservationId, int]:
        """Reservations that wait for any of `keys`, and the furthest of these in their prompts."""
        furthest: dict[ReservationId, int] = {}
        awaited = self._awaited.get(endpoint)
        if not awaited:
            return furthest
        for key in keys:
            for reservation in awaited.of(key):
                index = self._prefills[reservation].blocks[key]
                furthest[reservation] = max(index, furthest.get(reservation, -1))
        return furthest

    def _take_over(self, reservation: ReservationId, prefill: _Prefill, first: int) -> None:
        taken = prefill.keys[first : prefill.pays]
        lost = {key: index for index, key in enumerate(taken, start=first) if key not in prefill.blocks}
        self._awaited[prefill.endpoint].add(reservation, lost)
        prefill.blocks.update(lost)
        most = prefill.prompt_tokens - first * prefill.block_size
        prefill.left = min(most, prefill.left + len(taken) * prefill.block_size)
        prefill.pays = first
        self.taken_over(reservation, prefill.endpoint, prefill.block_size, taken, prefill.left)

    def _measured(self, reservation: ReservationId, left: int) -> None:
        prefill = self._prefills[reservation]
        if left < prefill.left:
            self._meters[prefill.endpoint].sample(prefill.left - left, self.clock())
            self._advance(reservation, left)

    def _advance(self, reservation: ReservationId, left: int) -> None:
        self._prefills[reservation].left = left
        self.report(reservation, left)
        if left == 0:
            self.forget(reservation)
