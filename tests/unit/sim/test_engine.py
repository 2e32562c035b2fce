"""The engine's promises: batching, budgets, admission, preemption, time."""

from collections import defaultdict, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_sim.engine.block_pool import BlockPool
from multipick_sim.engine.costs import Costs
from multipick_sim.engine.engine import Engine
from multipick_sim.engine.values import Admission, Cleared, Event, Limits, Removed, Request, Step, Stored

SECOND_A_STEP = Costs(fixed_s=1.0, weights_s=0.0, token_s=0.0, exchange_s=0.0, pair_s=0.0, context_s=0.0)
COSTS = Costs(fixed_s=0.5, weights_s=0.25, token_s=0.015625, exchange_s=0.0, pair_s=2.0**-12, context_s=2.0**-10)


def request(name: str, prompt: int, output: int = 1, prefix: str | None = None, size: int = 4) -> Request:
    """Requests of the same `prefix` share their prompt's blocks, as far as both have them."""
    prompt_blocks = prompt // size
    total = (prompt + output - 1) // size
    hashes = [hash((prefix or name, index)) for index in range(prompt_blocks)]
    return Request(name, prompt, output, hashes + [hash((name, "answer", i)) for i in range(prompt_blocks, total)])


def engine(
    blocks: int = 33, *, seqs: int = 8, budget: int = 16, model_len: int = 64, costs: Costs = SECOND_A_STEP
) -> Engine:
    return Engine(Limits(blocks, 4, seqs, budget, model_len), costs)


def run(model: Engine) -> list[Step]:
    steps = []
    while model.busy:
        steps.append(model.step())
        model.pool.check()
    return steps


def finished_at(steps: list[Step]) -> dict[str, float]:
    return {name: step.end_s for step in steps for name in step.finished}


def test_a_request_gets_one_token_a_step_and_ends_with_its_last() -> None:
    model = engine()
    model.submit(request("a", prompt=5, output=4), at=10.0)
    steps = run(model)
    assert [step.sampled_tokens for step in steps] == [1, 1, 1, 1]
    assert steps[0].first_tokens == ["a"]
    assert finished_at(steps) == {"a": 14.0}
    assert model.generated("a") is None
    assert (model.running, model.waiting, model.kv_usage) == (0, 0, 0.0)


def test_the_last_token_sampled_is_never_stored() -> None:
    model = engine()
    model.submit(request("a", prompt=4, output=5), 0.0)
    stored = [event for step in run(model) for event in step.events]
    assert [len(event.hashes) for event in stored if isinstance(event, Stored)] == [1, 1]
    assert len(model.pool.cached()) == (4 + 5 - 1) // 4


def test_prompts_longer_than_the_budget_are_computed_in_chunks_chained_by_their_parent() -> None:
    model = engine(budget=16)
    asked = request("a", prompt=40)
    model.submit(asked, 0.0)
    steps = run(model)
    assert [step.computed_tokens for step in steps] == [16, 16, 8]
    assert [step.sampled_tokens for step in steps] == [0, 0, 1]
    assert [event for step in steps for event in step.events] == [
        Stored("a", 0, asked.block_hashes[:4], None),
        Stored("a", 4, asked.block_hashes[4:8], asked.block_hashes[3]),
        Stored("a", 8, asked.block_hashes[8:], asked.block_hashes[7]),
    ]


def test_decodes_come_before_prefills_in_the_budget() -> None:
    model = engine(budget=16)
    for name in "abc":
        model.submit(request(name, prompt=4, output=20), 0.0)
    model.step()
    model.submit(request("d", prompt=30), model.now)
    assert [model.step().computed_tokens for _ in range(3)] == [13, 13, 4]


def test_a_second_prompt_takes_what_the_first_leaves_of_the_budget() -> None:
    model = engine(budget=16)
    model.submit(request("a", prompt=10, output=5), 0.0)
    model.submit(request("b", prompt=10, output=5), 0.0)
    first, second = model.step(), model.step()
    assert (first.computed_tokens, first.first_tokens) == (16, ["a"])
    assert (second.computed_tokens, second.first_tokens) == (4, ["b"])


def test_a_full_hit_still_computes_the_last_block() -> None:
    model = engine()
    model.submit(request("a", prompt=8, prefix="p"), 0.0)
    run(model)
    model.submit(request("b", prompt=8, prefix="p"), model.now)
    model.submit(request("c", prompt=9, prefix="p"), model.now)
    step = model.step()
    assert step.admitted == [Admission("b", 4), Admission("c", 8)]
    assert step.computed_tokens == 4 + 1


def test_without_prefix_caching_nothing_is_hit_and_nothing_told_of() -> None:
    model = Engine(Limits(33, 4, 8, 16, 64, enable_prefix_caching=False), SECOND_A_STEP)
    for name in ("a", "b"):
        model.submit(request(name, prompt=12, output=6, prefix="same"), 0.0)
    steps = run(model)
    assert [admission.hit_tokens for step in steps for admission in step.admitted] == [0, 0]
    assert sum(step.computed_tokens for step in steps) == 24
    assert not any(step.events for step in steps)
    assert model.pool.free == 32


def test_equal_prompts_of_one_step_hit_what_the_first_of_them_stores() -> None:
    model = engine()
    for name in "abc":
        model.submit(request(name, prompt=10, prefix="p"), 0.0)
    step = model.step()
    assert step.admitted == [Admission("a", 0), Admission("b", 8), Admission("c", 8)]
    assert len(step.events) == 1


def test_the_head_of_the_queue_waits_for_blocks_for_its_whole_prompt_and_nobody_overtakes() -> None:
    model = engine(blocks=9, budget=32, model_len=32)
    model.submit(request("a", prompt=16, output=4), 0.0)
    model.step()
    model.submit(request("big", prompt=20), model.now)
    model.submit(request("small", prompt=4), model.now)
    step = model.step()
    assert (model.running, model.waiting, step.admitted) == (1, 2, [])
    ends = finished_at(run(model))
    assert ends["a"] < ends["big"] == ends["small"]


def test_hits_count_as_room_only_where_others_hold_them() -> None:
    model = engine(blocks=9, budget=32, model_len=32)
    model.submit(request("a", prompt=16, output=2, prefix="p"), 0.0)
    model.step()
    model.submit(request("b", prompt=17, prefix="p"), model.now)
    assert model.step().admitted == [Admission("b", 16)]


def test_the_head_of_the_queue_enters_when_others_cache_what_it_lacked() -> None:
    model = engine(blocks=8, budget=32, model_len=28)
    first = request("a", prompt=8, output=9)
    model.submit(first, 0.0)
    model.step()
    follow_up = [*first.block_hashes[:3], 1, 2, 3]  # its prompt quotes an answer that is still being generated
    model.submit(Request("b", 25, 1, follow_up), model.now)
    steps = [model.step() for _ in range(4)]
    assert [step.admitted for step in steps] == [[], [], [], [Admission("b", 12)]]
    assert steps[-1].events[0] == Stored("a", 2, first.block_hashes[2:3], first.block_hashes[1])


def test_no_more_sequences_run_than_allowed() -> None:
    model = engine(seqs=2)
    for name in "abc":
        model.submit(request(name, prompt=4, output=3), 0.0)
    model.step()
    assert (model.running, model.waiting) == (2, 1)
    assert finished_at(run(model)) == {"a": 3.0, "b": 3.0, "c": 6.0}


def test_the_last_admitted_is_preempted_resumes_by_its_cache_and_loses_no_token() -> None:
    model = engine(blocks=9, budget=32, model_len=32)
    model.submit(request("a", prompt=12, output=12), 0.0)
    model.submit(request("b", prompt=12, output=12), 0.0)
    steps = run(model)
    assert [step.preempted for step in steps if step.preempted] == [["b"]]
    assert sum(step.sampled_tokens for step in steps) == 24
    assert [name for step in steps for name in step.first_tokens] == ["a", "b"]
    assert [admission.request_id for step in steps for admission in step.admitted] == ["a", "b"]
    ends = finished_at(steps)
    assert ends["a"] == 12.0
    assert ends["b"] > 12.0


def test_a_step_that_preempts_admits_nobody() -> None:
    model = engine(blocks=9, budget=32, model_len=32)
    model.submit(request("a", prompt=12, output=12), 0.0)
    model.submit(request("b", prompt=12, output=12), 0.0)
    while not (step := model.step()).preempted:
        pass
    assert (step.admitted, model.running, model.waiting) == ([], 1, 1)


def test_an_aborted_request_gives_its_blocks_back_and_leaves_its_cache() -> None:
    model = engine()
    asked = request("a", prompt=8, output=20)
    model.submit(asked, 0.0)
    model.step()
    assert model.abort("a")
    assert not model.abort("a")
    assert model.running == 0
    assert model.pool.lookup(asked.block_hashes, 2)
    model.pool.check()


def test_an_aborted_request_in_the_queue_is_forgotten() -> None:
    model = engine(seqs=1)
    model.submit(request("a", prompt=8, output=3), 0.0)
    model.submit(request("b", prompt=8), 0.0)
    model.step()
    assert model.abort("b")
    assert model.waiting == 0
    assert finished_at(run(model)) == {"a": 3.0}


def test_a_reset_fails_while_blocks_are_held_and_its_event_comes_with_the_next_step() -> None:
    model = engine()
    model.submit(request("a", prompt=8, output=2), 0.0)
    model.step()
    assert not model.reset_prefix_cache()
    run(model)
    assert model.reset_prefix_cache()
    model.submit(request("a", prompt=8), model.now)
    assert model.step().events == [Cleared(), Stored("a", 0, request("a", prompt=8).block_hashes, None)]


def test_a_forced_reset_preempts_all_and_they_come_back_in_order() -> None:
    model = engine(budget=32)
    model.submit(request("a", prompt=8, output=6), 0.0)
    model.submit(request("b", prompt=8, output=6), 0.0)
    model.step()
    model.step()
    assert model.reset_prefix_cache(preempt_running=True)
    step = model.step()
    assert (step.computed_tokens, step.preempted) == (20, ["b", "a"])
    assert isinstance(step.events[0], Cleared)
    assert [event.request_id for event in step.events if isinstance(event, Stored)] == ["a", "b"]
    assert finished_at(run(model)) == {"a": 6.0, "b": 6.0}


def test_a_paused_engine_queues() -> None:
    model = engine()
    model.pause()
    model.submit(request("a", prompt=4), 3.0)
    assert not model.busy
    assert model.waiting == 1
    model.resume(5.0)
    assert finished_at(run(model)) == {"a": 6.0}


def test_a_full_report_repeats_the_blocks_that_were_hit() -> None:
    model = engine()
    first = request("a", prompt=12, prefix="p")
    model.submit(first, 0.0)
    run(model)
    model.submit(Request("b", 12, 1, first.block_hashes, report_hits=True), model.now)
    assert model.step().events == [
        Stored("b", 0, first.block_hashes[:2], None),
        Stored("b", 2, first.block_hashes[2:3], first.block_hashes[1]),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        Request("x", 0, 1, []),
        Request("x", 1, 0, []),
        Request("x", 60, 5, list(range(16))),
        Request("x", 8, 1, [1]),
    ],
)
def test_requests_that_can_never_be_served_are_refused(bad: Request) -> None:
    with pytest.raises(ValueError, match=r"request|block"):
        engine().submit(bad, 0.0)


def test_an_id_that_is_here_already_is_refused() -> None:
    model = engine()
    model.submit(request("a", 4), 0.0)
    with pytest.raises(ValueError, match="here already"):
        model.submit(request("a", 4), 0.0)


def test_an_arrival_ahead_of_a_busy_engine_is_refused() -> None:
    model = engine()
    model.submit(request("a", 4, 9), 0.0)
    model.step()
    with pytest.raises(ValueError, match="advance"):
        model.submit(request("b", 4), 5.0)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [((4, 4, 1, 1, 16), "usable"), ((9, 4, 8, 4, 16), "max_num_batched_tokens"), ((9, 0, 1, 4, 16), "at least 1")],
)
def test_settings_that_vllm_refuses_are_refused(limits: tuple[int, int, int, int, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Limits(*limits)


def test_advance_does_the_steps_that_begin_in_time_and_leaves_the_last_one_to_end_later() -> None:
    model = engine(blocks=40, model_len=128)
    model.submit(request("a", prompt=4, output=100), 0.0)
    steps = model.advance(10.5)
    assert sum(step.steps for step in steps) == 11
    assert model.now == 11.0
    assert model.generated("a") == 11


@dataclass(eq=False)
class Naive:
    """The rules once more, written as vLLM's loop: every request in every step."""

    limits: Limits
    pool: BlockPool
    waiting: deque["NaiveSeq"] = field(default_factory=deque)
    running: list["NaiveSeq"] = field(default_factory=list)

    def step(self) -> tuple[list[Event], dict[str, int]]:
        size, budget, preempted = self.limits.block_size, self.limits.max_num_batched_tokens, False
        scheduled: list[NaiveSeq] = []
        index = 0
        while index < len(self.running):
            seq = self.running[index]
            tokens = min(seq.known - seq.computed, budget)
            need = self.limits.blocks_for(seq.computed + tokens) - len(seq.blocks)
            while need > self.pool.free:
                victim = self.running.pop()
                preempted = True
                self.pool.release(victim.blocks)
                victim.blocks, victim.cached, victim.computed = [], 0, 0
                self.waiting.appendleft(victim)
                if victim is seq:
                    break
            if seq not in self.running:
                break
            budget -= self.take(seq, tokens, need)
            scheduled.append(seq)
            index += 1
        while not preempted and self.waiting and len(self.running) < self.limits.max_num_seqs and budget:
            seq = self.waiting[0]
            hits = self.pool.lookup(seq.request.block_hashes, (seq.known - 1) // size)
            if self.limits.blocks_for(seq.known) - len(hits) + self.pool.unheld(hits) > self.pool.free:
                break
            self.waiting.popleft()
            self.running.append(seq)
            self.pool.touch(hits)
            seq.blocks, seq.cached, seq.computed = hits, len(hits), len(hits) * size
            tokens = min(seq.known - seq.computed, budget)
            budget -= self.take(seq, tokens, self.limits.blocks_for(seq.computed + tokens) - len(hits))
            scheduled.append(seq)
        sampled: dict[str, int] = defaultdict(int)
        for seq in scheduled:
            if seq.computed == seq.known:
                seq.known += 1
                sampled[seq.request.request_id] += 1
                if seq.known == seq.request.prompt_tokens + seq.request.output_tokens:
                    self.running.remove(seq)
                    self.pool.release(seq.blocks)
        return list(self.pool.take_events()), sampled

    def take(self, seq: "NaiveSeq", tokens: int, need: int) -> int:
        seq.blocks += self.pool.allocate(need)
        seq.computed += tokens
        full, hashes = seq.computed // self.limits.block_size, seq.request.block_hashes
        if full > seq.cached:
            parent = hashes[seq.cached - 1] if seq.cached else None
            new = slice(seq.cached, full)
            self.pool.cache(seq.request.request_id, seq.cached, seq.blocks[new], hashes[new], parent)
            seq.cached = full
        return tokens


@dataclass(eq=False)
class NaiveSeq:
    request: Request
    known: int
    blocks: list[int] = field(default_factory=list)
    cached: int = 0
    computed: int = 0


arrivals = st.lists(
    st.tuples(st.integers(0, 6), st.integers(1, 40), st.integers(1, 24), st.sampled_from("pqr")),
    min_size=1,
    max_size=14,
)


@settings(max_examples=150, deadline=None)
@given(arrivals, st.sampled_from([1, 2, 4]), st.integers(18, 40), st.integers(2, 6), st.integers(6, 40))
def test_looking_only_at_steps_that_matter_gives_what_looking_at_every_request_gives(
    plan: list[tuple[int, int, int, str]], size: int, spare: int, seqs: int, budget: int
) -> None:
    limits = Limits(64 // size + spare // size, size, seqs, max(budget, seqs), 62)
    model, naive = Engine(limits, SECOND_A_STEP), Naive(limits, BlockPool(limits.num_gpu_blocks))
    for number, (steps, prompt, output, prefix) in enumerate(plan):
        for _ in range(steps):
            compare(model, naive)
        asked = request(str(number), prompt, min(output, 62 - prompt), prefix, size)
        model.submit(asked, model.now)
        naive.waiting.append(NaiveSeq(asked, asked.prompt_tokens))
    while model.busy:
        compare(model, naive)
    assert not naive.running
    assert model.pool.free == model.pool.usable, "every block came back"


def compare(model: Engine, naive: Naive) -> None:
    if not model.busy:
        return
    step, (events, sampled) = model.step(), naive.step()
    assert list(step.events) == events
    assert step.sampled_tokens == sum(sampled.values())
    assert (model.running, model.waiting) == (len(naive.running), len(naive.waiting))
    for seq in naive.running:
        assert model.generated(seq.request.request_id) == seq.known - seq.request.prompt_tokens
    model.pool.check()


@settings(max_examples=100, deadline=None)
@given(arrivals, st.integers(18, 40), st.integers(2, 6), st.integers(6, 40))
def test_jumping_over_plain_decoding_changes_neither_events_nor_times(
    plan: list[tuple[int, int, int, str]], blocks: int, seqs: int, budget: int
) -> None:
    limits = Limits(blocks, 4, seqs, max(budget, seqs), 62)
    jumping, stepping = Engine(limits, COSTS), Engine(limits, COSTS)
    told: list[list[tuple[str, float, object]]] = [[], []]
    at = 0.0
    for number, (gap, prompt, output, prefix) in enumerate(plan):
        at += gap * 0.7
        told[0] += facts(jumping.advance(at))
        while stepping.busy and stepping.now < at:
            told[1] += facts([stepping.step()])
        asked = request(str(number), prompt, min(output, 62 - prompt), prefix)
        jumping.submit(asked, at)
        stepping.submit(asked, at)
        assert jumping.generated("0") == stepping.generated("0")
    told[0] += facts(jumping.advance(1e9))
    while stepping.busy:
        told[1] += facts([stepping.step()])
    assert told[0] == told[1]


def facts(steps: list[Step]) -> list[tuple[str, float, object]]:
    found: list[tuple[str, float, object]] = []
    for step in steps:
        found += [("event", step.end_s, event) for event in step.events]
        found += [("finished", step.end_s, name) for name in step.finished]
        found += [("first", step.end_s, name) for name in step.first_tokens]
        found += [("admitted", step.start_s, admission) for admission in step.admitted]
    return found


def test_evictions_of_one_allocation_are_one_event_in_the_order_of_the_queue() -> None:
    model = engine(blocks=9, budget=32, model_len=32)
    old = request("old", prompt=32 - 1)
    model.submit(old, 0.0)
    run(model)
    model.submit(request("new", prompt=12), model.now)
    # `old` held all blocks: its last one has no hash and goes first, then its deepest cached ones.
    assert model.step().events[0] == Removed([old.block_hashes[6], old.block_hashes[5]])
