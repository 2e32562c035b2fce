"""Which tokens a step computes, and for whose blocks: vLLM's `Scheduler.schedule`, first come, first served.

Rules: running requests first, one decoded token each, then the one unfinished prefill, then waiting requests with what
is left of the token budget; a request enters only if its whole prompt finds blocks; whoever needs a block when none is
free preempts the last admitted; a step that preempted admits nobody.

Theory of operation: since the budget covers one token for every sequence that may run, each decoding request advances
in each step. Only the steps in which it takes a block, fills one or ends are looked at, and the agenda knows them. A
prefill takes all the budget that decodes leave, so at most one is unfinished, and it is the last admitted.
"""

from collections import deque
from dataclasses import dataclass, field

from multipick_sim.engine.block_pool import BlockPool
from multipick_sim.engine.seq import NEVER, Agenda, Seq, is_valid
from multipick_sim.engine.values import Admission, Limits, Request


@dataclass(slots=True)
class Batch:
    """What one step computes."""

    decodes: int = 0  # requests that decode a token
    context: int = 0  # tokens that they attend to
    computed_tokens: int = 0  # prompt tokens
    pairs: int = 0  # (query, key) pairs of the prompt tokens
    admitted: list[Admission] = field(default_factory=list)
    prefilled: list[Seq] = field(default_factory=list)  # their prompt is done: a token comes out of this step
    preempted: list[Seq] = field(default_factory=list)
    ending: list[Seq] = field(default_factory=list)  # their last token comes out of this step


class Scheduler:
    """The requests of one engine.

    Invariants: a request is in `_seqs` from submission to its end, and in exactly one of `waiting` and `running`; it
    holds blocks only while running; `_prefilling`, if any, is the last of `running`, and all others decode.
    """

    def __init__(self, limits: Limits, pool: BlockPool) -> None:
        self.limits = limits
        self.pool = pool
        self.paused = False
        self.waiting: deque[Seq] = deque()
        self.running: dict[Seq, None] = {}  # in order of admission
        self._seqs: dict[str, Seq] = {}
        self._agenda = Agenda()
        self._prefilling: Seq | None = None
        self._admissions = 0
        self._decoding = 0
        self._decoding_base = 0  # sum over decoding requests of position(step) + 1 - step
        # The head of the queue did not fit: who, the pool's `frees` then, and the first hash that it missed. It cannot
        # fit before a block comes back or that hash is cached, so the lookup need not be repeated until then.
        self._blocked: tuple[Seq, int, int | None] | None = None

    @property
    def busy(self) -> bool:
        """Whether there is a step to do."""
        return not self.paused and bool(self.running or self.waiting)

    def submit(self, request: Request) -> None:
        """Queue a request. Raises ValueError for one that could never be served."""
        limits = self.limits
        if request.prompt_tokens < 1 or request.output_tokens < 1:
            raise ValueError("a request has at least one prompt token and one output token")
        if request.prompt_tokens + request.output_tokens > limits.max_model_len:
            raise ValueError(f"the request is longer than max_model_len ({limits.max_model_len})")
        if len(request.block_hashes) < (request.prompt_tokens + request.output_tokens - 1) // limits.block_size:
            raise ValueError("each full block needs a hash")
        if request.request_id in self._seqs:
            raise ValueError(f"request {request.request_id} is here already")
        self._seqs[request.request_id] = seq = Seq(request)
        self.waiting.append(seq)

    def abort(self, request_id: str, step: int) -> bool:
        """Forget a request before `step`; what it cached stays. False where it isn't here (any more)."""
        seq = self._seqs.pop(request_id, None)
        if seq is None:
            return False
        if seq in self.running:
            self._leave(seq, step)
        else:
            self.waiting.remove(seq)
        return True

    def preempt_all(self, step: int) -> list[Seq]:
        """Send all running requests back to the queue, where they keep their order."""
        preempted = []
        while self.running:
            preempted.append(self._preempt(step))
        return preempted

    def generated(self, request_id: str, step: int) -> int | None:
        """Tokens that a request got in the steps before `step`; None where it isn't here (any more)."""
        seq = self._seqs.get(request_id)
        return None if seq is None else seq.generated_before(step)

    def quiet_steps(self, step: int) -> int:
        """How many steps from `step` on do nothing but decode one token for each running request."""
        following = self._agenda.next_step()
        if self._prefilling is not None or self._may_admit(self._decoding) or following is None:
            return 0
        return following - step

    def decode_load(self, step: int) -> tuple[int, int]:
        """The requests that decode in `step` and the tokens that they attend to."""
        return self._decoding, self._decoding_base + step * self._decoding

    def schedule(self, step: int) -> Batch:
        """Decide on a step and give out its blocks."""
        batch = Batch()
        for order, seq in self._agenda.take(step):
            if is_valid(order, seq, step):
                self._decode(seq, step, batch)
        batch.decodes, batch.context = self.decode_load(step)
        if self._prefilling is not None:
            self._prefill(self._prefilling, step, batch)
        if not batch.preempted:
            while self._may_admit(batch.decodes + batch.computed_tokens) and self._admit(self.waiting[0], step, batch):
                pass
        return batch

    def complete(self, batch: Batch, step: int) -> None:
        """The step is over: prompts that are done begin to decode in the next, requests that are done leave."""
        for seq in batch.prefilled:
            seq.generated += 1
            if seq.generated == seq.request.output_tokens:
                batch.ending.append(seq)
            else:
                self._begin_decoding(seq, step + 1)
        for seq in batch.ending:
            del self._seqs[seq.request.request_id]
            self._leave(seq, step + 1)

    def _decode(self, seq: Seq, step: int, batch: Batch) -> None:
        """The request takes a block, fills one or ends in this step."""
        size = self.limits.block_size
        position = seq.position(step)
        place = position % size
        if place == 0 and not self._grow(seq, position + 1, step, batch):
            return
        if place == size - 1:
            self._cache(seq, position + 1)
        if step == seq.last_step():
            batch.ending.append(seq)
        else:
            self._agenda.add(seq, self._next_due(seq, step + 1, (place + 1) % size))

    def _next_due(self, seq: Seq, step: int, place: int) -> int:
        """The first step from `step` on that `_decode` has to see; `place` in its block has the token of `step`."""
        return step if place == 0 else min(step + self.limits.block_size - 1 - place, seq.last_step())

    def _prefill(self, seq: Seq, step: int, batch: Batch) -> None:
        """Compute as much of a running request's prompt as the budget allows."""
        left = seq.request.prompt_tokens + seq.generated - seq.computed
        tokens = min(left, self.limits.max_num_batched_tokens - batch.decodes - batch.computed_tokens)
        if self._grow(seq, seq.computed + tokens, step, batch):
            self._compute(seq, tokens, batch)

    def _may_admit(self, scheduled_tokens: int) -> bool:
        """Whether the head of the queue is worth a try."""
        if not self.waiting or len(self.running) == self.limits.max_num_seqs:
            return False
        if scheduled_tokens >= self.limits.max_num_batched_tokens:
            return False
        if self._blocked is None:
            return True
        seq, frees, missing = self._blocked
        if seq is not self.waiting[0] or frees != self.pool.frees:
            return True
        return missing is not None and self.pool.has(missing)

    def _admit(self, seq: Seq, step: int, batch: Batch) -> bool:
        """Start the head of the queue, if blocks for its whole prompt (and what it had generated) are free."""
        request, pool = seq.request, self.pool
        known_tokens = request.prompt_tokens + seq.generated
        # The last known token is always computed: its logits are what the next one is sampled from.
        limit = (known_tokens - 1) // self.limits.block_size if self.limits.enable_prefix_caching else 0
        hits = pool.lookup(request.block_hashes, limit)
        if self.limits.blocks_for(known_tokens) - len(hits) + pool.unheld(hits) > pool.free:
            missing = request.block_hashes[len(hits)] if len(hits) < limit else None
            self._blocked = (seq, pool.frees, missing)
            return False
        self._blocked = None
        self.waiting.popleft()
        self.running[seq] = None
        seq.order = self._admissions
        self._admissions += 1
        pool.touch(hits)
        seq.blocks = hits
        seq.cached = len(hits)
        seq.computed = len(hits) * self.limits.block_size
        if request.report_hits and hits:
            pool.report(request.request_id, 0, request.block_hashes[: len(hits)], None)
        if not seq.preemptions:
            batch.admitted.append(Admission(request.request_id, seq.computed))
        self._prefill(seq, step, batch)
        return True

    def _compute(self, seq: Seq, tokens: int, batch: Batch) -> None:
        batch.computed_tokens += tokens
        batch.pairs += tokens * seq.computed + tokens * (tokens + 1) // 2
        seq.computed += tokens
        self._cache(seq, seq.computed)
        if seq.computed < seq.request.prompt_tokens + seq.generated:
            self._prefilling = seq
        else:
            self._prefilling = None
            batch.prefilled.append(seq)

    def _cache(self, seq: Seq, tokens: int) -> None:
        """Make the blocks findable that so many tokens fill: when they are scheduled, before they are computed."""
        full = tokens // self.limits.block_size
        first = seq.cached
        if full > first and self.limits.enable_prefix_caching:
            hashes = seq.request.block_hashes
            parent = hashes[first - 1] if first else None
            self.pool.cache(seq.request.request_id, first, seq.blocks[first:full], hashes[first:full], parent)
            seq.cached = full

    def _grow(self, seq: Seq, tokens: int, step: int, batch: Batch) -> bool:
        """Give a running request blocks for so many tokens; others, or itself in the end, are preempted for them."""
        needed = self.limits.blocks_for(tokens) - len(seq.blocks)
        while needed > self.pool.free:
            victim = self._preempt(step)
            batch.preempted.append(victim)
            if victim is seq:
                return False
        seq.blocks += self.pool.allocate(needed)
        return True

    def _preempt(self, step: int) -> Seq:
        """The last admitted loses its blocks and goes to the head of the queue."""
        seq = next(reversed(self.running))
        generated = seq.generated_before(step)
        self._leave(seq, step)
        seq.generated = generated
        seq.preemptions += 1
        self.waiting.appendleft(seq)
        return seq

    def _begin_decoding(self, seq: Seq, step: int) -> None:
        seq.decodes_from = step
        self._decoding += 1
        self._decoding_base += seq.position(step) + 1 - step
        self._agenda.add(seq, self._next_due(seq, step, seq.position(step) % self.limits.block_size))

    def _leave(self, seq: Seq, step: int) -> None:
        """Out of the running ones before `step`, with all its blocks back in the pool."""
        del self.running[seq]
        if seq.decodes_from != NEVER:
            self._decoding -= 1
            self._decoding_base -= seq.position(step) + 1 - step
        if seq is self._prefilling:
            self._prefilling = None
        self.pool.release(seq.blocks)
        seq.blocks = []
        seq.cached = seq.computed = 0
        seq.order = seq.decodes_from = seq.due = NEVER
