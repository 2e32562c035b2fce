"""Waits for the end of what nobody tells of."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

LOOK_S: Final = 0.02


async def quiet(busy: Callable[[], object], within_s: float) -> None:
    """Returns once nothing is going on, or then."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while busy():
                await asyncio.sleep(LOOK_S)
