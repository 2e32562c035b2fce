"""Whoever goes by the pool's endpoints hears which there are."""

import pytest
from multipick_epp.app.app import App
from multipick_epp.config import Config, Events, Listen, Pool, StaticEndpoint
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.types import Endpoint

A, B = Endpoint("127.0.0.1:8"), Endpoint("127.0.0.1:9")


async def test_the_state_hears_who_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    listen = Listen("127.0.0.1", ext_proc=0, health=0, admin=0)
    app = App(Config(Pool("pool", ("m",)), (StaticEndpoint(A),), events=Events(enabled=False), listen=listen))
    told: list[object] = []
    monkeypatch.setattr(app.state, "there", told.append)
    await app.start()
    assert told[-1] == [A]
    for pods in ([], [A, B]):
        app.registry.set(map(PodEndpoint, pods))
        assert told[-1] == pods
    await app.close()
