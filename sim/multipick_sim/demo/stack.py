"""All processes of one run: Valkey, pods, a picker, Envoy; started in this order, ended in the reverse one.

Every port is one that its server took by itself and told of, in its log or over HTTP: demos can run side by side.
"""

import asyncio
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import aiohttp
import msgspec

from multipick_sim.assets import MODEL_DIR
from multipick_sim.demo.display import Display, Pod
from multipick_sim.demo.options import Options
from multipick_sim.local.bootstrap import Bootstrap, render
from multipick_sim.local.envoy import envoy
from multipick_sim.local.processes import running
from multipick_sim.local.valkey import valkey

MODEL = "demo"
SECRET = "DEMO_POOL_SECRET"
READY_S = 30.0  # a first start reads everything from the disk
POLL_S = 0.05
LOG_END_BYTES = 2000
DECISION_S = 2.0  # all parts share a few cores here, so a decision may be late that would not be elsewhere
STREAM_INTERVAL = 16  # tokens a chunk: the client needs the first token and the end, and pays for what is between
T = TypeVar("T")
_MULTIPICK = (sys.executable, "-c", "import sys; from multipick_cli.main import main; sys.exit(main())")


class StackError(Exception):
    """A part can't be started, or ended too early; the message says which, with the end of its log."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process of ours and where it writes."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def failure(self, what: str) -> StackError:
        """An error that says `what` and shows the end of the log."""
        return StackError(f"{self.name} {what}: {_read(self.log)[-LOG_END_BYTES:]}")


@dataclass(frozen=True, slots=True)
class Stack:
    """A running pool, ready for requests."""

    url: str  # of Envoy: http://host:port
    admin_url: str  # of the picker
    model: str
    endpoints: Sequence[str]  # of the pods
    children: Sequence[Child]

    async def fail(self) -> None:
        """Wait until a pod or the picker ends, which it should not: raises StackError."""
        waits = {asyncio.create_task(child.process.wait()): child for child in self.children}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        child = waits[done.pop()]
        raise child.failure(f"ended with status {child.process.returncode}")


@asynccontextmanager
async def stack(policy: str, options: Options, folder: Path, shown: Display) -> AsyncIterator[Stack]:
    """Start everything with empty caches; logs and configuration go to `folder`. Raises StackError where it can't."""
    async with AsyncExitStack() as started:
        try:
            shown.starting(policy, "Valkey")
            store = await started.enter_async_context(valkey())
            shown.starting(policy, "the pods")
            pods = [
                await started.enter_async_context(_child(f"{policy}-pod-{number}", folder, _pod_flags(options)))
                for number in range(options.pods)
            ]
            started.callback(_terminate, pods)  # all at once; each is then waited for
            endpoints = [await _announced(pod, _served_address) for pod in pods]
            shown.starting(policy, "the picker")
            config = folder / f"{policy}-picker.yaml"
            config.write_bytes(msgspec.yaml.encode(_picker_config(policy, endpoints, store.url, options)))
            picker = await started.enter_async_context(
                _child(f"{policy}-picker", folder, ("epp", "--config", str(config)))
            )
            listening = await _announced(picker, _listening)
            admin_url = f"http://127.0.0.1:{listening.admin}"
            await _knows_all(picker, admin_url, len(pods))
            shown.starting(policy, "Envoy")
            bootstrap = render(Bootstrap(endpoints, [listening.ext_proc]))
            gateway = await started.enter_async_context(envoy(bootstrap, log=folder / f"{policy}-envoy.log"))
        except RuntimeError as error:  # Envoy's and Valkey's
            raise StackError(str(error)) from error
        yield Stack(gateway.url, admin_url, MODEL, endpoints, [*pods, picker])


@asynccontextmanager
async def _child(name: str, folder: Path, arguments: Sequence[str]) -> AsyncIterator[Child]:
    log = folder / f"{name}.log"
    # What configures the user's own pickers, a store's address for one, is none of the demo's.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MULTIPICK_")}
    env[SECRET] = secrets.token_hex()
    async with running([*_MULTIPICK, *arguments], log=log, env=env) as process:
        yield Child(name, process, log)


def _terminate(children: Sequence[Child]) -> None:
    for child in children:
        with suppress(ProcessLookupError):
            child.process.terminate()


def _pod_flags(options: Options) -> Sequence[str]:
    flags = {
        "--preset": options.preset,
        "--speed": options.speed,
        "--served-model-name": MODEL,
        "--tokenizer": MODEL_DIR,
        "--host": "127.0.0.1",
        "--port": 0,
        "--events-port": 0,
        "--replay-port": 0,
        "--stream-interval": STREAM_INTERVAL,
        "--seed": options.seed,
    }
    return ["sim", "serve", *(str(part) for flag in flags.items() for part in flag)]


def _picker_config(policy: str, endpoints: Sequence[str], state: str, options: Options) -> Mapping[str, object]:
    return {
        "pool": {"name": "demo", "models": [MODEL], "tokenizer": str(MODEL_DIR), "secret_env": SECRET},
        **({"capture": {"path": str(options.capture / policy)}} if options.capture else {}),
        "hotspot_guard": options.guard,
        "shadow": list(options.shadow),
        "endpoints": [{"address": endpoint} for endpoint in endpoints],
        "state": state,
        "policy": policy,
        "listen": {"host": "127.0.0.1", "ext_proc": 0, "health": 0, "admin": 0},
        "limits": {"decision_s": DECISION_S},
        "explain_headers": True,
    }


async def _announced(child: Child, find: Callable[[str], T | None]) -> T:
    """What `find` finds in a line of the child's log, once it is there."""
    try:
        async with asyncio.timeout(READY_S):
            while child.process.returncode is None:
                for line in _read(child.log).splitlines():
                    if found := find(line):
                        return found
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise child.failure("didn't start in time") from error
    raise child.failure(f"ended with status {child.process.returncode}")


def _served_address(line: str) -> str | None:
    """The `ip:port` in a pod's first line."""
    found = re.search(r"http://([\d.]+:\d+)", line) if line.startswith("serving ") else None
    return found and found[1]


class _Listening(msgspec.Struct, frozen=True):
    """The picker's log entry that tells its ports."""

    message: Literal["listening"]
    ext_proc: int
    admin: int


def _listening(line: str) -> _Listening | None:
    try:
        return msgspec.json.decode(line, type=_Listening)
    except msgspec.MsgspecError:
        return None


async def _knows_all(picker: Child, admin_url: str, pods: int) -> None:
    """Wait until the picker finds every pod ready and follows its events: none may be missed."""
    rows: list[Pod] = []
    try:
        async with asyncio.timeout(READY_S), aiohttp.ClientSession(admin_url) as http:
            while sum(row.ready and row.mode != "blind" for row in rows) < pods:
                async with http.get("/endpoints") as response:
                    rows = msgspec.json.decode(await response.read(), type=list[Pod])
                await asyncio.sleep(POLL_S)
    except (TimeoutError, aiohttp.ClientError) as error:
        raise picker.failure(f"isn't ready, it knows {rows}") from error


def _read(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""
