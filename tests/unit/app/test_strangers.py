"""What is known of endpoints that are not there is forgotten."""

import asyncio

import pytest
from multipick_epp.app import leftovers
from multipick_epp.app.app import App
from multipick_epp.config import Config, Events, Listen, Pool, StaticEndpoint
from multipick_epp.state.memory import MemoryState
from multipick_epp.types import Endpoint

A, B = Endpoint("127.0.0.1:8"), Endpoint("127.0.0.1:9")


def picker() -> App:
    """In front of A."""
    listen = Listen("127.0.0.1", ext_proc=0, health=0, admin=0)
    return App(Config(Pool("pool", ("m",)), (StaticEndpoint(A),), events=Events(enabled=False), listen=listen))


async def test_what_stood_as_left_out_before_and_is_not_there_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that left while no picker ran, or while the store was away."""
    monkeypatch.setattr(leftovers, "LOOK_S", 0.001)
    told: list[tuple[Endpoint, int]] = []
    monkeypatch.setattr(MemoryState, "on_remembered", lambda _, listener: [listener(A, 1), listener(B, 1)])
    monkeypatch.setattr(MemoryState, "announce", lambda _, address, level: told.append((address, level)))
    app = picker()
    await app.start()
    async with asyncio.timeout(60):
        while (B, 0) not in told:
            await asyncio.sleep(0.001)
    await app.close()
    assert (A, 0) not in told
