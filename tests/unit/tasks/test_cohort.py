"""Coroutines of one turn go through their stages together, and each ends as it would have in a task of its own."""

import asyncio

import pytest
from multipick_epp.tasks.cohort import Cohort, Member, stage
from multipick_epp.tasks.eager import Rest, begun, in_task


class Scene:
    """Coroutines that say how far they came."""

    def __init__(self) -> None:
        self.cohort = Cohort()
        self.said: list[str] = []

    async def goes(self, name: str, stages: int = 2) -> None:
        for number in range(stages):
            self.said.append(f"{name}{number}")
            await stage()
        self.said.append(f"{name}.")

    async def waits(self, name: str, future: "asyncio.Future[str]") -> None:
        self.said.append(name)
        try:
            self.said.append(f"{name} {await future}")
        except (asyncio.CancelledError, ValueError) as error:
            self.said.append(f"{name} {type(error).__name__}")
            raise
        await stage()
        self.said.append(f"{name}.")

    async def cancels(self, member: Member) -> None:
        member.cancel()

    def future(self) -> "asyncio.Future[str]":
        return asyncio.get_running_loop().create_future()

    async def turns(self, count: int = 5) -> None:
        for _ in range(count):
            await asyncio.sleep(0)


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def test_those_of_one_turn_go_stage_by_stage(scene: Scene) -> None:
    for name in "abc":
        scene.cohort.begin(scene.goes(name))
    assert scene.said == []
    await asyncio.sleep(0)
    assert scene.said == ["a0", "b0", "c0", "a1", "b1", "c1", "a.", "b.", "c."]


async def test_one_that_has_more_stages_goes_on_alone(scene: Scene) -> None:
    scene.cohort.begin(scene.goes("a", 1))
    scene.cohort.begin(scene.goes("b", 3))
    await asyncio.sleep(0)
    assert scene.said == ["a0", "b0", "a.", "b1", "b2", "b."]


async def test_those_that_are_woken_in_one_turn_go_on_together(scene: Scene) -> None:
    futures = [scene.future() for _ in range(3)]
    for name, future in zip("abc", futures, strict=True):
        scene.cohort.begin(scene.waits(name, future))
    await scene.turns()
    scene.said.clear()
    for future in futures:
        future.set_result("!")
    await scene.turns()
    assert scene.said == ["a !", "b !", "c !", "a.", "b.", "c."]


async def test_what_is_there_already_is_not_waited_for(scene: Scene) -> None:
    future = scene.future()
    future.set_result("!")
    scene.cohort.begin(scene.waits("a", future))
    await asyncio.sleep(0)
    assert scene.said == ["a", "a !", "a."]


async def test_the_loop_has_its_turn_after_so_many(scene: Scene) -> None:
    for _ in range(40):
        scene.cohort.begin(scene.goes("x", 1))
    seen = []
    while len(scene.said) < 80:
        await asyncio.sleep(0)
        seen.append(len(scene.said) // 2)
    assert seen == [16, 32, 40]


async def test_what_begins_while_others_go_comes_in_the_next_turn(scene: Scene) -> None:
    async def begins_another() -> None:
        scene.cohort.begin(scene.goes("b", 0))
        await stage()
        scene.said.append("a.")

    scene.cohort.begin(begins_another())
    await asyncio.sleep(0)
    assert scene.said == ["a."]
    await asyncio.sleep(0)
    assert scene.said == ["a.", "b."]


async def test_the_fault_of_one_costs_no_other(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        await stage()
        raise RuntimeError("a fault")

    for work in (scene.goes("a"), fails(), scene.goes("b")):
        scene.cohort.begin(work)
    await asyncio.sleep(0)
    assert scene.said == ["a0", "b0", "a1", "b1", "a.", "b."]
    assert "a fault" in caplog.text


async def test_the_fault_of_what_is_waited_for_comes_out_at_the_await(scene: Scene) -> None:
    future = scene.future()
    scene.cohort.begin(scene.waits("a", future))
    await scene.turns()
    future.set_exception(ValueError())
    await scene.turns()
    assert scene.said == ["a", "a ValueError"]


async def test_what_is_cancelled_before_it_ran_never_runs(scene: Scene) -> None:
    scene.cohort.begin(scene.goes("a")).cancel()
    scene.cohort.begin(scene.goes("b", 0))
    await scene.turns()
    assert scene.said == ["b."]


async def test_what_is_cancelled_at_a_stage_is_told_there(scene: Scene) -> None:
    async def told() -> None:
        try:
            await stage()
        except asyncio.CancelledError:
            scene.said.append("told")
            raise

    member = scene.cohort.begin(told())
    scene.cohort.begin(scene.cancels(member))
    await asyncio.sleep(0)
    assert scene.said == ["told"]


async def test_what_is_cancelled_gives_up_what_it_waits_for(scene: Scene) -> None:
    future = scene.future()
    member = scene.cohort.begin(scene.waits("a", future))
    await scene.turns()
    member.cancel()
    assert future.cancelled()
    await scene.turns()
    assert scene.said == ["a", "a CancelledError"]


@pytest.mark.parametrize("turns", [0, 1])
async def test_what_is_cancelled_in_the_turn_in_which_its_wait_is_over_is_told_of_it(scene: Scene, turns: int) -> None:
    future = scene.future()
    member = scene.cohort.begin(scene.waits("a", future))
    await scene.turns()
    future.set_result("!")
    await scene.turns(turns)
    member.cancel()
    await scene.turns()
    assert scene.said == ["a", "a CancelledError"]


async def test_what_cancels_itself_is_told_at_its_next_wait(scene: Scene) -> None:
    future = scene.future()

    async def cancels() -> None:
        member.cancel()
        await scene.waits("a", future)

    member = scene.cohort.begin(cancels())
    await scene.turns()
    assert scene.said == ["a", "a CancelledError"]
    assert future.cancelled()


async def test_to_cancel_what_is_over_does_nothing(scene: Scene) -> None:
    member = scene.cohort.begin(scene.goes("a", 0))
    await scene.turns()
    member.cancel()
    await scene.turns()
    assert scene.said == ["a."]


async def _times_out(seconds: float) -> str:
    await in_task()
    try:
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().create_future()
    except TimeoutError:
        return "late"
    return "never"


@pytest.mark.parametrize("through_rest", [False, True])
async def test_what_asks_for_a_task_is_in_one_and_may_have_timeouts(scene: Scene, through_rest: bool) -> None:
    over = asyncio.Event()

    async def asks() -> None:
        if through_rest:
            rest = await begun(_times_out(0.001))
            assert isinstance(rest, Rest)
            await in_task()
            scene.said.append(await rest)
        else:
            scene.said.append(await _times_out(0.001))
        await stage()
        over.set()

    scene.cohort.begin(asks())
    await asyncio.wait_for(over.wait(), 60)
    assert scene.said == ["late"]


async def test_a_task_that_was_made_of_one_is_cancelled_with_it(scene: Scene) -> None:
    async def asks() -> None:
        try:
            await _times_out(3_600)
        finally:
            scene.said.append("over")

    member = scene.cohort.begin(asks())
    await scene.turns()
    member.cancel()
    await scene.turns()
    assert scene.said == ["over"]


async def test_what_cancels_itself_is_told_in_the_task_that_it_asks_for(scene: Scene) -> None:
    async def cancels() -> None:
        member.cancel()
        try:
            await _times_out(3_600)
        finally:
            scene.said.append("over")

    member = scene.cohort.begin(cancels())
    await scene.turns()
    assert scene.said == ["over"]


async def test_what_is_cancelled_at_a_stage_within_ends_what_is_within(scene: Scene) -> None:
    async def within() -> None:
        try:
            await stage()
        finally:
            scene.said.append("over")

    async def around() -> None:
        await begun(within())

    member = scene.cohort.begin(around())
    scene.cohort.begin(scene.cancels(member))
    await asyncio.sleep(0)
    assert scene.said == ["over"]


async def test_in_a_task_a_stage_is_a_turn_of_the_loop(scene: Scene) -> None:
    await asyncio.gather(scene.goes("a"), scene.goes("b"))
    assert scene.said == ["a0", "b0", "a1", "b1", "a.", "b."]
