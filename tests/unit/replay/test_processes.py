import multiprocessing
import os
import signal
from contextlib import closing
from pathlib import Path

import pytest
from multipick_sim.replay.processes import run_study
from multipick_sim.replay.setup import Setup
from multipick_sim.replay.study import Level, Source, Study, StudyError, in_order

POOL = Setup(pods=2, preset="a10-qwen2.5-7b")


def study(seeds: int, policies: tuple[str, ...] = ("lmetric", "random")) -> Study:
    return Study(Source("api", 40), POOL, policies, (Level(1.0),), seeds)


def test_arms_come_back_in_their_order_and_progress_grows() -> None:
    asked = study(4)
    arms = asked.arms(None)
    told: list[float] = []
    outcomes = in_order(run_study(asked, arms, 2, told.append), arms)
    assert [outcome.arm for outcome in outcomes] == list(arms)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_closing_ends_the_processes() -> None:
    asked = study(50)
    with closing(run_study(asked, asked.arms(None), 2, lambda share: None)) as runs:
        next(runs)
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()


def test_a_killed_process_is_told_of() -> None:
    asked = study(50)
    runs = run_study(asked, asked.arms(None), 1, lambda share: None)
    next(runs)
    [child] = multiprocessing.active_children()
    os.kill(child.pid or 0, signal.SIGKILL)
    with pytest.raises(StudyError, match="killed"):
        list(runs)
    assert not multiprocessing.active_children()


def test_a_run_that_fails_is_told_with_its_arm(tmp_path: Path) -> None:
    asked = study(1, ("lmetric",))
    broken = Study(Source(str(tmp_path / "gone.jsonl")), POOL, asked.policies, asked.levels, 1)
    with pytest.raises(StudyError, match=r"lmetric at load 1: TraceError: .*gone\.jsonl"):
        list(run_study(broken, broken.arms(None), 1, lambda share: None))


def test_levels_of_capacity_are_multiplied_out() -> None:
    asked = Study(Source("api"), POOL, ("lmetric",), (Level(0.5, True), Level(3.0)), 1)
    assert asked.needs_capacity
    assert [arm.load for arm in asked.arms(4.0)] == [2.0, 3.0]
    assert [str(level) for level in asked.levels] == ["0.5c", "3"]
