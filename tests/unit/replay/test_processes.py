import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from multiprocessing.context import SpawnProcess
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


def test_processes_are_deaf_to_the_terminals_interrupt_before_they_are_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    inherited: list[object] = []
    start = SpawnProcess.start

    def noting(process: SpawnProcess) -> None:
        inherited.append(signal.getsignal(signal.SIGINT))
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", noting)
    heed = signal.getsignal(signal.SIGINT)
    asked = study(1)
    list(run_study(asked, asked.arms(None), 2, lambda share: None))
    assert inherited == [signal.SIG_IGN] * 2
    assert signal.getsignal(signal.SIGINT) is heed


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_processes_end_at_once_with_a_parent_that_is_killed() -> None:
    code = """
from multipick_sim.replay.processes import run_study
from multipick_sim.replay.setup import Setup
from multipick_sim.replay.study import Level, Source, Study
asked = Study(Source("api", 100_000), Setup(pods=64), ("lmetric", "random"), (Level(1.0),), 1)
list(run_study(asked, asked.arms(None), 2, lambda share: print("they are there", flush=True)))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True) as parent:
        try:
            assert parent.stdout
            assert parent.stdout.readline() == "they are there\n"
            found = workers(parent.pid)
        finally:
            parent.kill()
    assert len(found) == 2
    try:
        deadline = time.monotonic() + 20.0  # a run takes minutes
        while any(map(lives, found)):
            assert time.monotonic() < deadline, "they go on without a parent"
            time.sleep(0.05)
    finally:
        for pid in filter(lives, found):
            os.kill(pid, signal.SIGKILL)


def workers(parent: int) -> list[int]:
    """The processes that it has spawned to work."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            of_it = f"PPid:\t{parent}\n" in (entry / "status").read_text()
            if of_it and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def lives(pid: int) -> bool:
    """Whether it is there, and no zombie that nobody waits for."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


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
