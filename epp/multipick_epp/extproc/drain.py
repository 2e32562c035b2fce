"""The end of a server: nobody who asked before it is left without an answer."""

from collections.abc import Collection

from multipick_epp.extproc.driver import Conversation
from multipick_epp.tasks.quiet import quiet

UNDECIDED_S = 2.0
"""For decisions that are still out when no more come: past the picker's own deadline."""


async def stop_all(conversations: Collection[Conversation]) -> None:
    """To be called once no new ones can begin. Requests that wait for us are decided first, if that is soon.

    The streams end with status OK: one that breaks would break the response that it accompanies.
    """
    await quiet(lambda: any(conversation.undecided for conversation in conversations), UNDECIDED_S)
    for conversation in tuple(conversations):
        conversation.stop()
