"""What is started here ends here: with its block, with its parent, and with all that it started itself."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from multipick_sim.local.processes import free_port, held_port, running, tethered

ANNOUNCE_AND_WAIT = "import os, time; print(os.getpid(), flush=True); time.sleep(3600)"
IGNORE_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ANNOUNCE_AND_WAIT}"
WITH_CHILD = (
    f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {ANNOUNCE_AND_WAIT!r}]); {ANNOUNCE_AND_WAIT}"
)


async def pids(log: Path, count: int) -> list[int]:
    async with asyncio.timeout(60):
        while len(lines := words(log)) < count:
            await asyncio.sleep(0.01)
    return [int(line) for line in lines]


def words(log: Path) -> list[str]:
    return log.read_text().split()


async def gone(pid: int) -> None:
    async with asyncio.timeout(60):
        while alive(pid):
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"  # nobody may reap it here


@pytest.mark.parametrize("program", [ANNOUNCE_AND_WAIT, IGNORE_SIGTERM])
async def test_a_child_ends_with_its_block(program: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with running([sys.executable, "-c", program], log=log, stop_s=0.2) as process:
        assert await pids(log, 1) == [process.pid]
        assert process.returncode is None
    assert process.returncode is not None


async def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with running([sys.executable, "-c", WITH_CHILD], log=log):
        both = await pids(log, 2)
    for pid in both:
        await gone(pid)


async def test_a_block_that_fails_ends_its_child(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with suppress(RuntimeError):
        async with running([sys.executable, "-c", ANNOUNCE_AND_WAIT], log=log):
            [pid] = await pids(log, 1)
            raise RuntimeError("inside")
    await gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a child with its parent")
async def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    child = [sys.executable, "-c", ANNOUNCE_AND_WAIT]
    parent = f"""
import subprocess, time
from multipick_sim.local.processes import tethered
subprocess.Popen(tethered({child!r}))
time.sleep(3600)
"""
    log = tmp_path / "log"
    async with running([sys.executable, "-c", parent], log=log) as process:
        [pid] = await pids(log, 1)
        os.kill(process.pid, signal.SIGKILL)
        await gone(pid)


def test_elsewhere_than_on_linux_the_command_is_run_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert tethered(["a", "b"]) == ["a", "b"]


def test_a_free_port_can_be_bound() -> None:
    assert 1024 <= free_port() <= 65535


def test_a_held_port_is_a_servers_again_and_again() -> None:
    port, keeper = held_port()
    with keeper:
        for _ in range(2):
            with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
                pass
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
