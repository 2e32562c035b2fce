"""A pod's events come late, or not at all, and may be replayed, or not."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab.lab import Lab

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("replays", [True, False], ids=["replayed", "unreplayed"])
@pytest.mark.parametrize("events", ["held", "dropped", "cut"])
async def test_events(lab: "Lab", events: str, replays: bool) -> None:
    async with lab.fault(f"events {events}, replays {'answered' if replays else 'refused'}") as trial:
        for pod in trial.stack.pods[:2]:
            await trial.sick(pod, events=events, replays=replays)
        await trial.lasts(6)
        for pod in trial.stack.pods[:2]:
            await trial.sick(pod)
