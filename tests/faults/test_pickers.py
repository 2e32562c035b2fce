"""A picker is killed, restarted, stands still, leaves, has a wrong clock or no tokenizer, or is bothered."""

import asyncio
import itertools
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from stacks.process import eventually

if TYPE_CHECKING:
    from lab.lab import Lab, Trial
    from stacks.process import Picker

pytestmark = pytest.mark.asyncio(loop_scope="module")
libfaketime = pytest.importorskip("libfaketime", reason="its wheel is for Linux on x86-64")
(FAKETIME,) = Path(libfaketime.__file__).parent.rglob("libfaketime.so.1")
AN_HOUR_AHEAD = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "+1h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
BAD_CONNECTIONS = 2000
WORDS = (b"", bytes(range(256)), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


def in_full_duplex(lab: "Lab") -> bool:
    return lab.style == "gateway"


async def test_killed(lab: "Lab") -> None:
    async with lab.fault("picker killed") as trial:
        picker = trial.stack.pickers[0]
        trial.breaks(through_picker=in_full_duplex(lab))
        await picker.kill()
        await trial.lasts(5)
        await picker.serve()


async def test_restarted_at_once(lab: "Lab") -> None:
    async with lab.fault("picker restarted at once") as trial:
        picker = trial.stack.pickers[0]
        trial.breaks(through_picker=in_full_duplex(lab))
        await picker.kill()
        await picker.serve()


async def test_paused(lab: "Lab") -> None:
    async with lab.fault("picker paused 20 s") as trial:
        picker = trial.stack.pickers[0]
        trial.breaks(through_picker=in_full_duplex(lab))
        os.killpg(picker.pid, signal.SIGSTOP)
        await trial.lasts(20)
        os.killpg(picker.pid, signal.SIGCONT)


async def test_drained(lab: "Lab") -> None:
    async with lab.fault("picker drained") as trial:
        picker = trial.stack.pickers[0]
        picker.terminate()
        trial.expect(await picker.ended() == 0, "the drained picker's exit status is not 0")
        await picker.stop()
        await trial.lasts(2)
        await picker.serve()


async def test_clock_ahead(lab: "Lab") -> None:
    """It comes with the wrong clock, owns endpoints, and dies."""
    async with lab.fault("picker's clock an hour ahead") as trial:
        picker = trial.stack.pickers[0]
        await picker.stop()
        picker.env |= AN_HOUR_AHEAD
        try:
            await picker.serve()
            await trial.lasts(3)
            trial.breaks(through_picker=in_full_duplex(lab))
            await picker.kill()
        finally:
            for name in AN_HOUR_AHEAD:
                del picker.env[name]
        await trial.lasts(4)
        await picker.serve()


async def reports(trial: "Trial", picker: "Picker") -> None:
    """It says itself that it lacks something."""

    async def silent() -> object:
        status = await trial.stack.get(f"{picker.url}/status")
        return None if status["mismatches"] or status["tokens"] == "engine" else status

    try:
        await eventually(silent, within_s=8)
    except AssertionError as error:
        trial.wrong.append(f"a missing chat template is nowhere reported: {error}"[:300])


async def test_chat_template_gone(lab: "Lab") -> None:
    async with lab.fault("chat template gone at a restart") as trial:
        picker, file = trial.stack.pickers[0], lab.tokenizer / "tokenizer_config.json"
        kept = file.read_bytes()
        await picker.stop()
        file.unlink()
        try:
            await picker.serve()
            await reports(trial, picker)
        finally:
            file.write_bytes(kept)
        await picker.stop()
        blind = sum(each.probe and each.mode == "blind" for each in trial.traffic.sent)
        trial.expect(not blind, f"{blind} probes were decided blind, though engines can tokenise them")
        await picker.serve()


async def test_tokenizer_gone(lab: "Lab") -> None:
    """It can't start then; the others go on, and it comes with the file."""
    async with lab.fault("tokenizer gone at a restart") as trial:
        picker, file = trial.stack.pickers[0], lab.tokenizer / "tokenizer.json"
        kept = file.read_bytes()
        await picker.stop()
        file.unlink()
        try:
            with pytest.raises(AssertionError, match=r"no tokenizer\.json"):
                await picker.serve()
            await picker.stop()
            await trial.lasts(2)
        finally:
            file.write_bytes(kept)
        await picker.serve()


async def test_bad_connections(lab: "Lab") -> None:
    async with lab.fault("2,000 bad connections") as trial:
        port = trial.stack.pickers[0].port
        words = itertools.islice(itertools.cycle(WORDS), BAD_CONNECTIONS)
        opened = await asyncio.gather(*(bother(port, each) for each in words))
        await trial.lasts(5)
        for writer in opened:
            if writer is not None:
                writer.close()


async def bother(port: int, words: bytes) -> asyncio.StreamWriter | None:
    """A connection that says this and nothing more; None where it is refused."""
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(words)
        return writer
    return None
