"""Without the store the others' loads are forgotten once, some seconds after they were seen last."""

import asyncio
from collections import Counter
from random import Random
from typing import Any, cast

import pytest
from multipick_epp.state.redis import loads
from multipick_epp.state.redis.connection import Connection, LostError
from multipick_epp.state.redis.keys import keys_of
from multipick_epp.state.redis.link import Link
from multipick_epp.state.redis.view import View
from multipick_epp.state.stats import StateStats
from multipick_epp.types import ReplicaId

NAME = ReplicaId("replica")


class Flapping:
    """A store that takes the scripts and the lease, and is lost before it tells anything."""

    def __init__(self) -> None:
        self._renewed = False

    def call(self, *command: Any) -> asyncio.Future[Any]:
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if command[0] == "SCRIPT":
            reply.set_result(command)
        elif self._renewed:
            reply.set_exception(LostError("away"))
        else:
            self._renewed = True
            reply.set_result([b"generation", [NAME.encode(), b"stamp"]])
        return reply

    def send(self, *command: Any) -> None:
        """Nobody waits for it."""


async def test_however_often_the_store_is_lost_again_the_others_are_forgotten_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is read when it is back at last is not forgotten by a time that began before."""
    forgotten: list[View] = []
    monkeypatch.setattr(View, "forget_others", lambda view: forgotten.append(view))
    monkeypatch.setattr(loads, "FORGET_OTHERS_S", 0.01)
    state = loads.Loads(keys_of("pool"), NAME, lambda _: set(), StateStats())
    for _ in range(3):
        with pytest.raises(LostError):
            await state.session(cast("Connection", Flapping()), Link("loads", Random(), Counter()))
    await asyncio.sleep(0.05)
    assert len(forgotten) == 1
