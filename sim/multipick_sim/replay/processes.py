"""The running of a study on several cores: one process a core, which is given one arm after another."""

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from ctypes import c_double
from functools import partial
from multiprocessing.connection import Connection, wait
from operator import setitem
from typing import Any

from multipick_epp.policy.registry import policy

from multipick_sim.replay.outcome import Arm, Outcome, outcome
from multipick_sim.replay.run import Replay
from multipick_sim.replay.study import Study, StudyError
from multipick_sim.workloads.workload import Workload

LOOK_EVERY_S = 0.5
KILLED = "a process of the study was killed; is there enough memory? (--jobs)"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_study(study: Study, arms: Sequence[Arm], jobs: int, progress: Callable[[float], None]) -> Generator[Outcome]:
    """The outcome of each arm, as soon as it is there; `progress` is told the share done, twice a second.

    Closing the iterator ends the processes. Raises StudyError where one of them failed or was killed.
    """
    # Spawned, not forked: a forked one would hold the others' pipes open, and outlive a parent that is killed.
    context = multiprocessing.get_context("spawn")
    shares: Any = context.RawArray(c_double, len(arms))
    numbers = iter(range(len(arms)))
    processes: list[multiprocessing.process.BaseProcess] = []
    idle: list[Connection] = []
    busy: set[Connection] = set()
    try:
        for _ in range(min(jobs, len(arms))):
            ours, theirs = context.Pipe()
            processes.append(context.Process(target=_work, args=(theirs, study, arms, shares), daemon=True))
            _start_deaf(processes[-1])
            theirs.close()  # else its end would never be seen
            idle.append(ours)
        while idle or busy:
            for connection in idle:
                number = next(numbers, None)
                if number is not None:
                    _send(connection, number)
                    busy.add(connection)
            ready = [each for each in wait(list(busy), LOOK_EVERY_S) if isinstance(each, Connection)]
            idle = ready
            busy.difference_update(ready)
            progress(sum(shares) / len(arms))
            for connection in ready:
                yield _received(connection)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _start_deaf(process: multiprocessing.process.BaseProcess) -> None:
    """A terminal interrupts children too, but the parent decides; from the start, since they import for a second."""
    heed = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, heed)


def _send(connection: Connection, number: int) -> None:
    try:
        connection.send(number)
    except OSError as error:
        raise StudyError(KILLED) from error


def _received(connection: Connection) -> Outcome:
    try:
        answer: Outcome | str = connection.recv()
    except (EOFError, OSError) as error:
        raise StudyError(KILLED) from error
    if isinstance(answer, str):
        raise StudyError(answer)
    return answer


def _work(connection: Connection, study: Study, arms: Sequence[Arm], shares: Any) -> None:
    """One process: arms by their numbers, until the other end is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.disable()  # millions of objects and no cycles among them: looking for some takes a fifth of a run's time
    workload: Workload | None = None
    seed = -1
    with suppress(EOFError):
        while True:
            number: int = connection.recv()
            arm = arms[number]
            try:
                if workload is None or (study.source.depends_on_seed and arm.seed != seed):
                    workload, _ = study.source.workload(arm.seed, study.setup.max_tokens)
                    seed = arm.seed
                connection.send(_outcome(study, workload, arm, partial(setitem, shares, number)))
                gc.collect()  # the run itself was one
            except Exception as error:
                connection.send(f"{arm.policy} at load {arm.load:g}: {type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """A run takes minutes, and the pipe is looked at between runs: nobody would want its outcome."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a process of a study calls this"
    parent.join()
    os._exit(1)


def _outcome(study: Study, workload: Workload, arm: Arm, tell: Callable[[float], None]) -> Outcome:
    requests = len(workload.items)
    replay = Replay(workload, policy(arm.policy), study.setup, arm.load, arm.seed)
    found = outcome(arm, replay.run(lambda done: tell(done / requests)), study.setup.pods)
    tell(1.0)
    return found
