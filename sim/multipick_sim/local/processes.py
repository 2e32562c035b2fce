"""Child processes that never outlive their parent."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

_TETHER: Final = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(parent):  # it was gone before the call
    sys.exit(1)
os.execvp(command[0], command)
"""


def tethered(command: Sequence[str]) -> list[str]:
    """`command`, run so that the kernel kills it when the thread that starts it ends.

    A small Python in between asks for that and becomes the command: a hook in the forked child would run Python there
    while the parent's threads (gRPC's) hold locks. Elsewhere than on Linux the command is returned as it is.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid()), *command]


@asynccontextmanager
async def running(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, stop_s: float = 5.0
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child in a session of its own, its output in `log`; ended by SIGTERM, and by SIGKILL `stop_s` seconds later.

    What the child itself started is killed with it. To be entered in a thread that lives as long as the child should.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *tethered(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await _end(process, stop_s)


async def _end(process: asyncio.subprocess.Process, stop_s: float) -> None:
    try:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), stop_s)
    finally:  # also where the waiting was cancelled
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on now. Let servers bind port 0 where they can: nothing reserves this one."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def held_port(host: str = "127.0.0.1") -> tuple[int, socket.socket]:
    """A TCP port for a server that comes and goes, and the socket that keeps it.

    While that is open nobody is given the port by chance, but a server may listen on it: servers set SO_REUSEADDR, and
    this socket never listens. Elsewhere than on Linux that is not possible, and nothing keeps the port.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind((host, 0))
    port: int = keeper.getsockname()[1]
    if sys.platform != "linux":
        keeper.close()
    return port, keeper
