"""One engine: requests in, steps out, and the time at which each of them ends."""

from bisect import bisect_left

from multipick_sim.engine.block_pool import BlockPool
from multipick_sim.engine.costs import Costs
from multipick_sim.engine.scheduler import Scheduler
from multipick_sim.engine.values import Limits, Request, Step


class Engine:
    """A vLLM engine in simulated time.

    `now` is the time at which the next step can begin: while busy, the end of the last one. A caller first advances to
    an event's time, then submits, aborts or pauses; a step that has begun by then takes no notice of it, as in vLLM.
    """

    def __init__(self, limits: Limits, costs: Costs) -> None:
        self.limits = limits
        self.costs = costs
        self.now = 0.0
        self.pool = BlockPool(limits.num_gpu_blocks)
        self._scheduler = Scheduler(limits, self.pool)
        self._step = 0  # number of the next step
        self._preempted: list[str] = []  # between steps

    @property
    def running(self) -> int:
        """Requests that hold blocks."""
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        """Requests in the queue, preempted ones too."""
        return len(self._scheduler.waiting)

    @property
    def kv_usage(self) -> float:
        """Share of the blocks that requests hold, 0..1; cached blocks that nobody holds count as free."""
        return 1 - self.pool.free / self.pool.usable

    @property
    def busy(self) -> bool:
        """Whether there is a step to do."""
        return self._scheduler.busy

    def submit(self, request: Request, at: float) -> None:
        """Queue a request that arrives at `at`. Raises ValueError for one that can't be served, or comes too early."""
        if self.busy and self.now < at:
            raise ValueError("advance to the arrival first")
        self._scheduler.submit(request)
        self.now = max(self.now, at)

    def abort(self, request_id: str) -> bool:
        """Forget a request; what it cached stays. False where it isn't here (any more)."""
        return self._scheduler.abort(request_id, self._step)

    def pause(self) -> None:
        """Schedule nothing; requests stay where they are."""
        self._scheduler.paused = True

    def resume(self, at: float) -> None:
        """Go on at `at` after a pause."""
        self._scheduler.paused = False
        self.now = max(self.now, at)

    def reset_prefix_cache(self, preempt_running: bool = False) -> bool:
        """Drop the cache; False, and nothing changes, while requests hold blocks and may not be preempted.

        The event goes out with the next step's, as vLLM has it.
        """
        if preempt_running:
            self._preempted += [seq.request.request_id for seq in self._scheduler.preempt_all(self._step)]
        return self.pool.reset()

    def generated(self, request_id: str) -> int | None:
        """Tokens that a request has got; None where it isn't here (any more)."""
        return self._scheduler.generated(request_id, self._step)

    def advance(self, until: float) -> list[Step]:
        """Do all steps that begin before `until`; stretches of plain decoding are one `Step` each."""
        steps = []
        while self.now < until and self.busy:
            quiet = self._scheduler.quiet_steps(self._step)
            steps.append(self._decode_stretch(quiet, until) if quiet else self.step())
        return steps

    def step(self) -> Step:
        """Do one step. There must be one to do: the caller has looked at `busy`."""
        start = self.now
        batch = self._scheduler.schedule(self._step)
        self._scheduler.complete(batch, self._step)
        self._step += 1
        self.now = start + self.costs.step_s(batch.computed_tokens, batch.pairs, batch.decodes, batch.context)
        preempted = self._preempted + [seq.request.request_id for seq in batch.preempted]
        self._preempted = []
        return Step(
            start_s=start,
            end_s=self.now,
            steps=1,
            computed_tokens=batch.computed_tokens,
            sampled_tokens=batch.decodes + len(batch.prefilled),
            admitted=batch.admitted,
            first_tokens=[seq.request.request_id for seq in batch.prefilled if seq.generated == 1],
            preempted=preempted,
            finished=[seq.request.request_id for seq in batch.ending],
            events=self.pool.take_events(),
        )

    def _decode_stretch(self, quiet: int, until: float) -> Step:
        """At most `quiet` steps of plain decoding, of which the last begins before `until`."""
        decodes, context = self._scheduler.decode_load(self._step)
        start, seconds = self.now, self.costs.decoding_s(decodes, context)
        count = 1 + bisect_left(range(1, quiet), until, key=lambda steps: start + seconds(steps))
        self._step += count
        self.now = start + seconds(count)
        return Step(start, self.now, count, computed_tokens=0, sampled_tokens=count * decodes)
