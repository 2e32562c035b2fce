"""A pod dies, comes back, stands still, refuses, hangs, or serves another model."""

import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab.lab import Lab

pytestmark = pytest.mark.asyncio(loop_scope="module")
SICK_S = 8.0


async def test_killed(lab: "Lab") -> None:
    async with lab.fault("pod killed") as trial:
        pod = trial.stack.pods[0]
        trial.breaks(pod)
        await pod.kill()
        await trial.lasts(5)
        await pod.serve()


async def test_restarted(lab: "Lab") -> None:
    async with lab.fault("pod restarted at once") as trial:
        pod = trial.stack.pods[0]
        trial.breaks(pod)
        await pod.kill()
        await pod.serve()


async def test_paused(lab: "Lab") -> None:
    async with lab.fault("pod paused 6 s") as trial:
        pod = trial.stack.pods[0]
        trial.breaks(pod)
        os.kill(pod.pid, signal.SIGSTOP)
        await trial.lasts(6)
        os.kill(pod.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("name", "sickness"),
    [
        ("pod answers 500 to all", {"status": 500}),
        ("pod answers 500 to POST", {"status": 500, "requests": "posts"}),
        ("pod hangs", {"hang": True}),
        ("pod hangs on POST", {"hang": True, "requests": "posts"}),
    ],
)
async def test_sick(lab: "Lab", name: str, sickness: dict[str, object]) -> None:
    async with lab.fault(name) as trial:
        pod = trial.stack.pods[0]
        trial.breaks(pod, answers=True)
        await trial.sick(pod, **sickness)
        await trial.lasts(SICK_S)
        await trial.sick(pod)


async def test_another_model(lab: "Lab") -> None:
    """Its engine comes back with another model: it answers 404 to what is asked of the pool."""
    async with lab.fault("pod serves another model") as trial:
        pod = trial.stack.pods[0]
        trial.breaks(pod, answers=True)
        await pod.kill()
        own = pod.command
        pod.command = ["another" if each == "demo" else each for each in own]
        await pod.serve()
        await trial.lasts(SICK_S)
        await pod.kill()
        pod.command = own
        await pod.serve()
