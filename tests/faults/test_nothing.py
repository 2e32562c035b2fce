"""Nothing is broken: what the lab itself would take for a failure."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab.lab import Lab

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_nothing(lab: "Lab") -> None:
    async with lab.fault("nothing") as trial:
        await trial.lasts(8)
