"""`multipick demo` as a user starts it: from the command line to the verdict, through the real Envoy and Valkey."""

import asyncio
import json
import os
import re
import signal
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from multipick_sim.workloads.formats import read_workload

MARK = "DEMO_TEST_MARK"
PATIENCE_S = 90.0


@dataclass(frozen=True, slots=True)
class Demo:
    """A started demo. All that it starts inherits `mark` in its environment and keeps its files below `folder`."""

    process: Process
    mark: str
    folder: Path

    async def says(self, part: str) -> None:
        """Skip its output up to a line with `part`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            async for line in self.process.stdout:
                if part in line.decode():
                    return
        raise AssertionError(f"it ended without saying {part!r}")

    async def end(self) -> tuple[int, str, str]:
        """Its exit status, and what is left of its output and of its errors."""
        async with asyncio.timeout(PATIENCE_S):
            output, errors = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, output.decode(), errors.decode()

    def processes(self) -> dict[int, str]:
        """Living processes of this demo, itself included: command lines by process id."""
        found = {}
        wanted = f"{MARK}={self.mark}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    async def is_gone(self) -> None:
        """Wait until no process is left."""
        async with asyncio.timeout(PATIENCE_S):
            while self.processes():
                await asyncio.sleep(0.05)


StartDemo = Callable[..., Awaitable[Demo]]


@pytest.fixture
async def start_demo(tmp_path: Path) -> AsyncIterator[StartDemo]:
    demos: list[Demo] = []
    folder = tmp_path / "temporary"
    folder.mkdir()

    async def start(*arguments: object) -> Demo:
        mark = uuid.uuid4().hex
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("multipick")),
            "demo",
            *map(str, arguments),
            stdout=PIPE,
            stderr=PIPE,
            env=os.environ | {MARK: mark, "TMPDIR": str(folder)},
            start_new_session=True,
        )
        demos.append(Demo(process, mark, folder))
        return demos[-1]

    yield start
    for demo in demos:
        for pid in demo.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await demo.process.wait()


async def test_a_run_compares_policies_on_the_same_requests(start_demo: StartDemo, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    report, captured = tmp_path / "report.html", tmp_path / "captured"
    files = ("--json", figures, "--report", report, "--capture", captured)
    demo = await start_demo("--requests", 40, "--pods", 2, "--speed", 2, "--seed", 3, *files)
    status, output, errors = await demo.end()
    assert status == 0, errors
    written = json.loads(figures.read_text())
    setup = {"requests": 40, "pods": 2, "speed": 2.0, "seed": 3, "traffic": "mixed"}
    assert written["setup"].items() >= setup.items()
    assert [row["policy"] for row in written["policies"]] == ["lmetric", "round-robin"]
    for row in written["policies"]:
        assert (row["requests"], row["failed"]) == (40, 0)
        assert row["agreement"]["compared"] == 40
        assert row["agreement"]["share"] >= 0.9
        assert 0 < row["hit_rate"] < 1
        assert 0 < row["ttft_s"]["mean"] <= row["e2e_s"]["mean"]
        assert row["tpot_s"]["p50"] > 0
    assert written["policies"][0]["output_tokens"] == written["policies"][1]["output_tokens"]
    assert written["verdict"] in output
    assert output.splitlines()[-1] == f"report: {report}"
    page = report.read_text()
    assert "demo: mixed" in page
    assert "<svg" in page
    assert not re.search(r"(src|href)=|url\(|@import|https?://", page)
    for policy in ("lmetric", "round-robin"):
        assert len(read_workload(captured / policy).items) == 40
    assert f"multipick replay {captured}/lmetric --pods 1" in output
    assert demo.processes() == {}
    assert list(demo.folder.iterdir()) == []


async def test_a_trace_is_sent_with_its_lengths_and_shared_prefixes(start_demo: StartDemo, tmp_path: Path) -> None:
    trace, figures = tmp_path / "trace.jsonl", tmp_path / "figures.json"
    files = ("--json", figures, "--report", tmp_path / "report.html")
    ids = [[1, 2, 3], [4, 5, 6], [1, 2, 7], [1, 8]]
    lengths = [1500, 1536, 1100, 700]
    trace.write_text(
        "".join(
            json.dumps({"timestamp": 2000 * n, "input_length": length, "output_length": 5, "hash_ids": hash_ids}) + "\n"
            for n, (length, hash_ids) in enumerate(zip(lengths, ids, strict=True))
        )
    )
    demo = await start_demo("--trace", trace, "--pods", 1, "--policies", "lmetric", "--speed", 4, *files)
    status, _, errors = await demo.end()
    assert status == 0, errors
    [row] = json.loads(figures.read_text())["policies"]
    assert row["prompt_tokens"] == sum(lengths)
    assert row["output_tokens"] == 20
    assert row["cached_tokens"] == 1024 + 512  # the third request's first two ids, the fourth's first
    assert row["agreement"]["equal"] == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_in_good_order(start_demo: StartDemo, number: signal.Signals) -> None:
    demo = await start_demo("--requests", 5000, "--pods", 1)
    await demo.says("5000 requests")
    assert sum("sim serve" in line for line in demo.processes().values()) == 1
    demo.process.send_signal(number)
    demo.process.send_signal(number)  # a second one doesn't cut the cleaning short
    status, _, errors = await demo.end()
    assert (status, errors) == (128 + number, "")
    assert demo.processes() == {}
    assert list(demo.folder.iterdir()) == []


async def test_a_signal_while_it_starts_ends_it_too(start_demo: StartDemo) -> None:
    demo = await start_demo("--pods", 2)
    await demo.says("starting")
    demo.process.send_signal(signal.SIGINT)
    status, _, _ = await demo.end()
    assert status == 128 + signal.SIGINT
    assert demo.processes() == {}
    assert list(demo.folder.iterdir()) == []


async def test_a_reader_that_leaves_ends_it_in_good_order(start_demo: StartDemo) -> None:
    demo = await start_demo("--requests", 5000, "--pods", 1)
    await demo.says("5000 requests")
    demo.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined] # as `| head` does
    status, _, errors = await demo.end()
    assert (status, errors) == (128 + signal.SIGPIPE, "")
    assert demo.processes() == {}
    assert list(demo.folder.iterdir()) == []


async def test_being_killed_leaves_no_process_behind(start_demo: StartDemo) -> None:
    demo = await start_demo("--requests", 5000, "--pods", 1)
    await demo.says("5000 requests")
    demo.process.kill()
    await demo.is_gone()


@pytest.mark.parametrize(("part", "name"), [("sim serve", "lmetric-pod-"), ("epp --config", "lmetric-picker")])
async def test_a_part_that_dies_ends_it_and_the_logs_are_kept(start_demo: StartDemo, part: str, name: str) -> None:
    demo = await start_demo("--requests", 5000, "--pods", 2)
    await demo.says("5000 requests")
    os.kill(next(pid for pid, line in demo.processes().items() if part in line), signal.SIGKILL)
    status, _, errors = await demo.end()
    assert status == 1
    assert f"multipick demo: {name}" in errors
    assert "ended with status -9" in errors
    [kept] = demo.folder.iterdir()
    assert f"the logs are in {kept}" in errors
    assert {log.name for log in kept.iterdir()} >= {"lmetric-pod-0.log", "lmetric-pod-1.log", "lmetric-picker.log"}
    assert demo.processes() == {}


async def test_a_trace_that_is_none_is_refused_before_anything_starts(start_demo: StartDemo, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 0}\n')
    demo = await start_demo("--trace", trace)
    status, output, errors = await demo.end()
    assert (status, output) == (2, "")
    assert "trace.jsonl, line 1:" in errors
    assert list(demo.folder.iterdir()) == []
