"""The processes of `ext_proc.py`, each picker with an Envoy, endpoints and a store of its own, and what they cost."""

import asyncio
import json
import os
import re
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop
from ext_proc_load import Endpoint
from multipick_sim.assets import MODEL_DIR
from multipick_sim.local.bootstrap import Bootstrap, Style, render
from multipick_sim.local.envoy import Envoy, envoy
from multipick_sim.local.processes import running
from multipick_sim.local.valkey import valkey

ENDPOINTS = 16
STYLES: tuple[Style, ...] = ("standalone", "gateway")
PICKER = "import sys; from multipick_epp.app.cli import command; sys.exit(command(sys.argv[1:]))"
THREADS = 4  # of an Envoy before several workers
WORKER = b"multipick_epp.app.worker"  # in the command line of one
ROOMS = ("cli", "epp", "operator", "sim")
CORES = sorted(os.sched_getaffinity(0))  # as it began: each picker in its turn has the last one to itself


@dataclass(frozen=True)
class Parts:
    picker: int  # process id
    admin_url: str
    envoys: dict[Style, Envoy]


@dataclass(frozen=True)
class Variant:
    """One of the pickers that take turns."""

    name: str
    transport: str = "h2"
    checkout: Path | None = None  # that it is of, where not of this one
    workers: int | None = None  # None: one, with a core of its own, before an Envoy of one thread


async def start(stack: AsyncExitStack, variant: Variant, state: str) -> Parts:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    everyone, picker_cores = cores(shared=variant.workers is not None)
    os.sched_setaffinity(0, everyone)
    serve = [sys.executable, __file__]
    await stack.enter_async_context(running(serve, log=folder / "endpoints"))
    endpoints = json.loads(await line(folder / "endpoints", "127"))
    url = "memory" if state == "memory" else (await stack.enter_async_context(valkey())).url
    config = {
        "pool": {"name": "bench", "models": ["bench"], "tokenizer": str(MODEL_DIR)},
        "endpoints": [{"address": endpoint} for endpoint in endpoints],
        "state": url,
        "events": {"enabled": False},
        "listen": {"host": "127.0.0.1", "ext_proc": 0, "health": 0, "admin": 0, "transport": variant.transport},
    } | ({} if variant.workers is None else {"workers": variant.workers})
    checkout = variant.checkout
    env = os.environ | ({"PYTHONPATH": ":".join(str(checkout / room) for room in ROOMS)} if checkout else {})
    (folder / "picker.yaml").write_text(json.dumps(config))
    epp = [sys.executable, "-c", PICKER, "--config", str(folder / "picker.yaml")]
    os.sched_setaffinity(0, picker_cores)  # the child inherits it
    picker = await stack.enter_async_context(running(epp, log=folder / "picker", env=env))
    os.sched_setaffinity(0, everyone)
    ports = json.loads(await line(folder / "picker", '"listening"'))
    envoys: dict[Style, Envoy] = {}
    for style in STYLES:
        bootstrap = render(Bootstrap(endpoints, [ports["ext_proc"]], style=style, direct_port=0))
        log, threads = folder / f"envoy-{style}", 1 if variant.workers is None else THREADS
        envoys[style] = await stack.enter_async_context(envoy(bootstrap, log=log, workers=threads))
    return Parts(picker.pid, f"http://127.0.0.1:{ports['admin']}", envoys)


def cores(shared: bool) -> tuple[set[int], set[int]]:
    """For everybody else, for the picker."""
    *others, last = CORES
    if shared:
        return {*others, last}, {*others, last}
    return (set(others), {last}) if others else ({last}, {last})


async def line(log: Path, part: str) -> str:
    async with asyncio.timeout(60):
        while True:
            for each in lines(log):
                if part in each:
                    return each
            await asyncio.sleep(0.05)


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


async def endpoints() -> None:
    servers = [await asyncio.get_running_loop().create_server(Endpoint, "127.0.0.1", 0) for _ in range(ENDPOINTS)]
    print(json.dumps([f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]), flush=True)
    await asyncio.Event().wait()


def cpu_us(pid: int) -> float:
    """CPU time of a process, in all its threads, and of its children so far."""
    spent = sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return spent / 1e3 + sum(map(cpu_us, map(int, children)))


def workers_us(pid: int) -> list[float]:
    """CPU time of each of a picker's workers; of the picker where it has none."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    workers = [int(each) for each in children if WORKER in Path(f"/proc/{each}/cmdline").read_bytes()]
    return [cpu_us(each) for each in workers or [pid]]


def memory_mb(pid: int) -> float:
    """Memory of a process and its children, each with its part of what it shares."""
    pss = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(pss[1]) / 1024 if pss else 0.0) + sum(map(memory_mb, map(int, children)))


if __name__ == "__main__":
    uvloop.run(endpoints())
