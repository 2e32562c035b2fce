"""One picker of two workers, behind an Envoy of four threads: requests, kills, drains, and its pages."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from multipick_sim.texts import fixed_text
from multipick_sim.traffic.sse import Answer
from stacks.process import eventually

if TYPE_CHECKING:
    from multipick_sim.local.bootstrap import Style
    from stacks.process import Picker
    from stacks.stack import Stack

    from tests.integration.stack.conftest import StartStack

CHAT = "/v1/chat/completions"
WORKERS = {"workers": 2}
THREADS = 4
AT_ONCE = 64  # connections to Envoy: none of its threads goes without
STREAM = {"max_tokens": 200, "stream": True, "stream_options": {"include_usage": True}}


def chat(seed: int, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": fixed_text(seed, 50)}]
    return {"model": "demo", "messages": messages, "max_tokens": 20, **fields}


async def ask(stack: "Stack", seed: int) -> str:
    """A chat that was answered, and that a picker decided; its id."""
    name = f"request-{seed}"
    async with stack.http.post(CHAT, json=chat(seed), headers={"x-request-id": name}) as response:
        assert response.status == 200, await response.text()
        await response.read()
    return response.headers["x-multipick-mode"] and name


async def stream(stack: "Stack", seed: int, begun: asyncio.Semaphore) -> int:
    """The tokens of an answer that came whole; releases `begun` at its first byte."""
    answer, first = Answer(), True
    async with stack.http.post(CHAT, json=chat(seed, **STREAM)) as response:
        assert response.status == 200
        async for chunk in response.content.iter_any():
            answer.feed(chunk, 1.0)
            if first:
                begun.release()
            first = False
    return answer.finish().output_tokens


@asynccontextmanager
async def streaming(stack: "Stack") -> AsyncIterator[list[asyncio.Task[int]]]:
    """Answers that have begun and go on."""
    begun = asyncio.Semaphore(0)
    streams = [asyncio.create_task(stream(stack, seed, begun)) for seed in range(AT_ONCE)]
    for _ in streams:
        await begun.acquire()
    yield streams


def workers(picker: "Picker") -> list[int]:
    """The workers' processes."""
    children = Path(f"/proc/{picker.pid}/task/{picker.pid}/children").read_text().split()
    return [int(each) for each in children if b"app.worker" in Path(f"/proc/{each}/cmdline").read_bytes()]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def connections(pid: int, port: int) -> int:
    """To that port of this machine, which the process has open."""
    table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in table]
    open_ones = {each[9] for each in fields if each[1].endswith(f":{port:04X}") and each[3] == "01"}
    links = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(f"socket:[{inode}]" in links for inode in open_ones)


def decisions(page: str) -> float:
    return sum(float(each) for each in re.findall(r"^multipick_decisions_total\{.*\} (\S+)$", page, re.MULTILINE))


async def counted(stack: "Stack") -> float:
    """Decisions, by the picker's page."""
    return decisions(await stack.metrics(stack.pickers[0]))


async def counted_by_each(stack: "Stack") -> list[float]:
    """Decisions of each worker that runs, by its own page."""
    counts = []
    for port in re.findall(r'"a worker serves".*"admin": ?(\d+)', stack.pickers[0].said()):
        with suppress(aiohttp.ClientError):  # one that has ended
            async with stack.admin.get(f"http://127.0.0.1:{port}/metrics") as response:
                counts.append(decisions(await response.text()))
    return counts


async def test_workers_share_connections_and_are_one_picker_to_who_asks(start_stack: "StartStack") -> None:
    stack = await start_stack(config=WORKERS, threads=THREADS)
    [picker] = stack.pickers
    names = await asyncio.gather(*(ask(stack, seed) for seed in range(AT_ONCE)))
    assert len(workers(picker)) == 2
    own = [connections(pid, picker.port) for pid in workers(picker)]
    assert sum(own) >= THREADS
    assert min(own) >= THREADS // 2, own
    assert await counted(stack) == AT_ONCE
    parts = await counted_by_each(stack)
    assert (len(parts), sum(parts)) == (2, AT_ONCE)
    assert min(parts) > 0
    for name in names:  # whoever decided it
        explained = await stack.get(f"{picker.url}/explain/{name}")
        assert explained["request"] == name
    rows = await stack.rows(picker)
    assert sum(row["requests_total"] for row in rows.values()) == AT_ONCE
    status = await stack.status(lambda found: found["endpoints"]["checked"] == 2)
    assert status["workers"] == {"configured": 2, "serving": 2, "restarts": 0}
    assert len(status["replica"].split(",")) == 2
    await stack.settled()
    await stack.idle()


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (signal.SIGKILL, r"it ended, exit status -9"),
        (signal.SIGTERM, r"it ended, exit status 0"),
        (signal.SIGSTOP, r"no report for \d+ s, no work for \d+ s, exit status -9"),
    ],
    ids=["killed", "drained", "standing still"],
)
async def test_a_worker_that_ends_costs_no_request_and_comes_again(
    number: signal.Signals, why: str, start_stack: "StartStack"
) -> None:
    stack = await start_stack(config=WORKERS, threads=THREADS, flags=("--speed", 5))
    [picker] = stack.pickers
    ended = asyncio.Event()

    async def traffic(client: int) -> int:
        done = 0
        while not ended.is_set():
            async with stack.http.post(CHAT, json=chat(1000 * client + done)) as response:
                assert response.status == 200, await response.text()
                await response.read()
            done += 1
        return done

    clients = [asyncio.create_task(traffic(client)) for client in range(16)]

    async def without() -> object:
        """What each has decided, while one has nothing."""
        assert not any(client.done() for client in clients), [client for client in clients if client.done()]
        parts = await counted_by_each(stack)
        return parts if len(parts) < 2 or min(parts) == 0 else None

    await eventually(without)
    before = await counted(stack)
    victim, other = workers(picker)
    os.kill(victim, number)
    await stack.status(lambda found: found["workers"] == {"configured": 2, "serving": 2, "restarts": 1})
    assert other in workers(picker), "the other one goes on"
    failing = (await stack.status(lambda found: found["failing"]))["failing"]
    assert [each["task"] for each in failing] == ["worker"]
    assert re.fullmatch(why, failing[0]["why"])
    assert await counted(stack) >= before
    await eventually(without)  # what the dead one had comes again, and not all to the other one
    ended.set()
    assert min(await asyncio.gather(*clients)) > 0
    await stack.idle()


@pytest.mark.parametrize("style", ["standalone", "gateway"])
async def test_all_workers_are_drained(style: "Style", start_stack: "StartStack") -> None:
    stack = await start_stack(style, config=WORKERS, threads=THREADS, flags=("--speed", 0.5))
    [picker] = stack.pickers
    both = workers(picker)
    async with streaming(stack) as streams:
        picker.terminate()
        assert await asyncio.gather(*streams) == [200] * AT_ONCE
        assert await picker.ended() == 0
    assert not any(map(running, both))
    assert await stack.load() == {}


@pytest.fixture
def terminal() -> Iterator[None]:
    """Tests may run under `nohup`, as whose child a picker would not hear of it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("terminal")
async def test_a_terminal_that_ends_drains_what_was_started_there(start_stack: "StartStack") -> None:
    stack = await start_stack("gateway", config=WORKERS, threads=THREADS, flags=("--speed", 0.5))
    [picker] = stack.pickers
    async with streaming(stack) as streams:
        os.killpg(picker.pid, signal.SIGHUP)  # as the system does: to all of its processes
        assert await asyncio.gather(*streams) == [200] * AT_ONCE
        assert await picker.ended() == 0
    assert await stack.load() == {}


async def test_workers_and_ingest_end_with_the_picker_that_is_killed(start_stack: "StartStack") -> None:
    stack = await start_stack(config=WORKERS)
    [picker] = stack.pickers
    all_of_it = [*workers(picker), picker.ingest_pid]
    os.kill(picker.pid, signal.SIGKILL)

    async def left() -> object:
        return [pid for pid in all_of_it if pid is not None and running(pid)]

    await eventually(left)
    assert len(all_of_it) == 3


async def test_a_worker_that_cannot_start_ends_the_picker(start_stack: "StartStack", tmp_path: Path) -> None:
    stack = await start_stack()
    [picker] = stack.pickers
    await picker.stop()
    (tmp_path / "tokenizer.json").write_text("{}")
    file = tmp_path / f"{picker.log.stem}.yaml"
    pool = f"pool: {{name: demo, tokenizer: {tmp_path}}}\n"
    file.write_text(f"{pool}state: {stack.store.url}\nworkers: 2\nlisten: {{ext_proc: 0, health: 0, admin: 0}}\n")
    with pytest.raises(AssertionError, match=r"the picker can't start.*worker"):
        await picker.serve()
