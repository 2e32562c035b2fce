"""The picker's side of the ingest process, before processes that do what no ingest should."""

import asyncio
import errno
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from multipick_epp.events import process as ingest_process
from multipick_epp.events.child import IngestOptions
from multipick_epp.events.discover import Ports
from multipick_epp.events.process import IngestProcess
from multipick_epp.tasks import process

REPORT = '{"feeds": [], "degraded": null}\n'
CHILD = """\
import os, runpy, sys, time
reports = os.fdopen(os.dup(int(sys.argv[3])), "w")
def report(line=%r):
    reports.write(line)
    reports.flush()
def for_ever():
    while True:
        time.sleep(600)
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Any]]:
    """Starts the supervisor, with a script in the place of the process's program."""
    monkeypatch.setattr(process, "CLOSE_S", 0.1)
    monkeypatch.setattr(ingest_process, "CLOSE_S", 0.1)
    python, started = sys.executable, []

    async def start(script: str) -> IngestProcess:
        child, program = tmp_path / "child.py", tmp_path / "python"
        child.write_text(CHILD % REPORT + script)
        program.write_text(f'#!/bin/sh\nexec {python} {child} "$@"\n')
        program.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(program))
        ingest = IngestProcess(IngestOptions("redis://127.0.0.1:1", None, "pool", "model", b"", Ports(), "critical"))
        await ingest.start()
        started.append(ingest)
        return ingest

    yield start
    for ingest in started:
        await ingest.close()


@pytest.mark.parametrize(
    "line",
    ["'a word'", "'{'", """'{"feeds": 1}'""", "'x' * (17 << 20)", "'[' * 100_000", "chr(255) + chr(0)"],
    ids=["a word", "half", "another shape", "17 MiB", "nested", "no text"],
)
async def test_a_line_that_is_no_report_is_skipped_and_counted(start: Any, eventually: Any, line: str) -> None:
    ingest = await start(f"report({line} + chr(10))\nreport()\nfor_ever()")
    await eventually(lambda: ingest.degraded is None)
    assert ingest.unread_reports > 0
    assert ingest.restarts == 0


async def test_what_the_process_prints_reaches_nobody_who_reads_reports(start: Any, eventually: Any) -> None:
    ingest = await start(
        'print("stray", flush=True)\n'
        "sys.argv = [sys.argv[0], sys.argv[3]]\n"
        'runpy.run_module("multipick_epp.events.child", run_name="__main__")\n'
    )
    await eventually(lambda: ingest.degraded is not None and "writer" in ingest.degraded)
    assert (ingest.unread_reports, ingest.restarts) == (0, 0)


async def test_half_a_report_and_then_nothing_is_a_stuck_process(
    start: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LOOK_S", 0.02)
    ingest = await start(f"report()\nreport({REPORT[:10]!r})\nfor_ever()")
    await eventually(lambda: ingest.restarts >= 2)


async def test_a_process_that_is_only_busy_is_stuck_later(
    start: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LOOK_S", 0.02)
    monkeypatch.setattr(process, "IDLE_LOOKS", 10**9)
    ingest = await start("while True: pass")
    await eventually(lambda: ingest.restarts >= 1)


async def test_a_picker_that_stalls_takes_it_for_nobodys_silence_but_its_own(
    start: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LOOK_S", 0.01)
    monkeypatch.setattr(process, "LATE_S", 0.01)
    ingest = await start("for_ever()")
    await eventually(lambda: ingest.pid is not None)
    for _ in range(3 * process.IDLE_LOOKS):
        time.sleep(0.03)  # noqa: ASYNC251 (this loop is meant to stand still)
        await asyncio.sleep(0.01)
    assert ingest.restarts == 0
    await eventually(lambda: ingest.restarts >= 1)


async def test_a_process_that_ignores_the_end_of_its_input_is_killed(start: Any, eventually: Any) -> None:
    ingest = await start("report()\nfor_ever()")
    await eventually(lambda: ingest.degraded is None)
    pid = ingest.pid
    await ingest.close()
    await eventually(lambda: gone(pid))


async def test_a_process_that_ends_at_once_is_started_again_and_again(start: Any, eventually: Any) -> None:
    ingest = await start("raise SystemExit(3)")
    await eventually(lambda: ingest.restarts >= 3)
    assert ingest.degraded == "ingest process is down"


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOMEM, "no memory"), OSError(errno.EAGAIN, "no process"), RuntimeError("no child watcher")],
    ids=["no memory", "no process", "unexpected"],
)
async def test_where_no_process_can_be_started_it_is_tried_again(
    start: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    spawn, failures = asyncio.create_subprocess_exec, [error, error]

    async def create_subprocess_exec(*arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return await spawn(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", create_subprocess_exec)
    ingest = await start("report()\nfor_ever()")
    await eventually(lambda: ingest.restarts == 2)
    await eventually(lambda: ingest.degraded is None)
