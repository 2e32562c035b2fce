"""Waits for what a stream left to the loop."""

import asyncio

from multipick_epp.extproc.driver import Conversation


async def decided(conversation: Conversation) -> None:
    """The picker has answered, or was given up, and what follows has happened."""
    while conversation._decision is not None:
        await asyncio.sleep(0)
    for _ in range(5):  # what is given up hears of it a turn or two later
        await asyncio.sleep(0)
