"""The parts of a stack that are `multipick …`: pods and pickers, to be killed and started again."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
from multipick_epp.types import Endpoint
from multipick_sim.local.processes import held_port, running

Json = dict[str, Any]
PATIENCE_S = 60.0
MULTIPICK = (sys.executable, "-c", "import sys; from multipick_cli.main import main; sys.exit(main())")


async def eventually(condition: Callable[[], Awaitable[object]], within_s: float = PATIENCE_S) -> None:
    """Wait until `condition` gives None, or anything that is equal to its default: what it gives instead is shown."""
    found: object = "nothing yet"
    try:
        async with asyncio.timeout(within_s):
            while found := await condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"still: {found}") from None


class Process:
    """`multipick …`, to be killed and started again."""

    def __init__(self, name: str, folder: Path, arguments: Sequence[object]) -> None:
        self.log = folder / f"{name}.log"
        self.command = [*MULTIPICK, *map(str, arguments)]
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("MULTIPICK_")}
        self._running = AsyncExitStack()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    async def start(self, announcement: str) -> re.Match[str]:
        """Start, and wait for a line in the log that matches."""
        seen = len(self.said())
        process = await self._running.enter_async_context(running(self.command, log=self.log, env=self.env))
        self._process = process
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not (match := re.search(announcement, self.said()[seen:])):
                    assert process.returncode is None, self.said()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not started: {self.said()[-2000:]}") from None
        return match

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    async def kill(self) -> None:
        """SIGKILL for it and all that it started, as the end of a container."""
        os.killpg(self.pid, signal.SIGKILL)
        await self.ended()
        await self.stop()

    async def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        self._process = None
        await self._running.aclose()

    def terminate(self) -> None:
        """SIGTERM alone."""
        os.kill(self.pid, signal.SIGTERM)

    async def ended(self) -> int:
        """The exit status, once it has one."""
        assert self._process is not None
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.wait()


class Pod(Process):
    """A simulated vLLM."""

    endpoint = Endpoint("")

    async def serve(self) -> None:
        self.endpoint = Endpoint((await self.start(r"^serving .* on http://([\d.]+:\d+)"))[1])


class Picker(Process):
    """A picker, always on the same ext_proc port."""

    def __init__(self, name: str, folder: Path, config: Json) -> None:
        self.port, self._keeper = held_port()
        file = folder / f"{name}.yaml"
        listen = {"host": "127.0.0.1", "ext_proc": self.port, "health": 0, "admin": 0}
        file.write_bytes(msgspec.yaml.encode(config | {"listen": listen}))
        super().__init__(name, folder, ("epp", "--config", file))
        self.url = ""

    async def serve(self) -> None:
        listening = await self.start(r'"listening".*"admin": ?(\d+)')
        self.url = f"http://127.0.0.1:{listening[1]}"

    def let_go(self) -> None:
        self._keeper.close()

    @property
    def ingest_pid(self) -> int | None:
        """Of its child process, which takes the KV events in."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0]) if children else None


async def stop_all(processes: Sequence[Process]) -> None:
    await asyncio.gather(*(process.stop() for process in processes))
