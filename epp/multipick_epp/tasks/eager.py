"""A coroutine that seldom has to wait, begun as a function is called: what it needs no other task for it does at once.

Whoever calls it so pays for a timeout, or for a task, only where something is left to wait for.
"""

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, Final, TypeVar, final

T = TypeVar("T")

IN_TASK: Final = object()
"""Waited for by what wants to go on in a task."""


@final
class Rest(Coroutine[Any, Any, T]):
    """What is left of a coroutine that waits. To be awaited once, in the task that began it, or made a task of."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], waits_for: Any) -> None:
        self._coroutine = coroutine
        # Until the task was told. A task it is in soon, where it asks for one.
        self._waits_for: tuple[Any, ...] = (None if waits_for is IN_TASK else waits_for,)

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


@types.coroutine
def begun(coroutine: Coroutine[Any, Any, T]) -> Generator[Any, None, T | Rest[T]]:
    """To be awaited: its result, where it came to its end without a wait but at its stages (see `cohort`).

    Raises what it raises till then.
    """
    try:
        while (waits_for := coroutine.send(None)) is None:
            yield
    except StopIteration as end:
        result: T = end.value
        return result
    except BaseException:
        coroutine.close()  # at a stage; elsewhere it is over
        raise
    return Rest(coroutine, waits_for)


async def in_task() -> None:
    """Behind this a coroutine is in a task, as timeouts want it; before, it may be in none."""
    if asyncio.current_task() is None:
        await _in_task()


@types.coroutine
def _in_task() -> Generator[object, None, None]:
    yield IN_TASK
