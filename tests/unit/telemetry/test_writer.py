"""Logs of a process whose standard error nobody reads for a while, or ever."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

PROGRAM = """\
import logging, sys
from multipick_epp.telemetry import logs
logs.configure("info", "json")
for number in range(int(sys.argv[1])):
    logging.getLogger("multipick_epp.x").info("line", extra={"number": number, "pad": "x" * 200})
print("went on", flush=True)
sys.stdin.read()
logging.getLogger("multipick_epp.x").info("last")
"""


def run(lines: int, read: Callable[[int], bytes], *, blocking: bool = True) -> tuple[int, bytes]:
    """The exit status, and what `read` makes of standard error, once so many lines were logged while nobody read."""
    reads, writes = os.pipe()
    os.set_blocking(writes, blocking)
    command = [sys.executable, "-c", PROGRAM, str(lines)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writes) as process:
        os.close(writes)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"went on\n"
        process.stdin.close()
        said = read(reads)
        status = process.wait()
    os.close(reads)
    return status, said


def whole(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read()


def test_nobody_who_logs_waits_for_who_reads_and_what_is_lost_is_told() -> None:
    status, said = run(10_000, whole)
    entries = [json.loads(line) for line in said.splitlines()]
    told = [each["lines"] for each in entries if "lost" in each["message"]]
    numbers = [each["number"] for each in entries if "number" in each]
    assert status == 0
    assert numbers == sorted(numbers)
    assert 4096 <= len(numbers) < 10_000
    assert len(numbers) + sum(told) >= 10_000


def test_a_file_that_does_not_block_loses_nothing() -> None:
    status, said = run(2_000, whole, blocking=False)
    assert [json.loads(line).get("number") for line in said.splitlines()] == [*range(2_000), None]
    assert status == 0


def test_a_process_ends_also_where_nobody_ever_reads() -> None:
    assert run(1000, lambda descriptor: b"") == (0, b"")


def test_what_is_logged_last_is_written() -> None:
    status, said = run(3, whole)
    assert [json.loads(line)["message"] for line in said.splitlines()] == ["line"] * 3 + ["last"]
    assert status == 0
