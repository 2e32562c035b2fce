"""A coroutine that seldom has to wait, begun as a function is called: what it needs no other task for it does at once.

Whoever calls it so pays for a timeout, or for a task, only where something is left to wait for. (From Python 3.12 on
asyncio can begin tasks like that, too.)
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, final

T = TypeVar("T")


@final
class Rest(Coroutine[Any, Any, T]):
    """What is left of a coroutine that waits. To be awaited once, in the task that began it, or made a task of."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for: tuple[Any, ...] = (waits_for,)  # until the task was told

    def __await__(self) -> "Rest[T]":
        return self

    def __iter__(self) -> "Rest[T]":
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        """Go on; the first time, only tell what it waits for."""
        if self._waits_for:
            (waits_for,), self._waits_for = self._waits_for, ()
            return waits_for
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise it where the coroutine waits. What it waits for is given up, as a task does that is cancelled."""
        for waits_for in self._waits_for:
            if isinstance(waits_for, asyncio.Future):
                waits_for.cancel()
        self._waits_for = ()
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """End the coroutine where it waits."""
        self._coroutine.close()


def begin(coroutine: Coroutine[Any, Any, T]) -> T | Rest[T]:
    """Its result, where it came to its end without a wait. Raises what it raises till then."""
    try:
        waits_for = coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    return Rest(coroutine, waits_for)


async def in_task() -> None:
    """Behind this a coroutine is in a task, as timeouts want it: one that was begun is in none until it has waited."""
    if asyncio.current_task() is None:
        await asyncio.sleep(0)
