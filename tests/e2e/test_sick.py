"""A pool that can't come up says why, in its conditions."""

from typing import Any

import pytest
from cluster.client import Namespace, until
from cluster.homes import Home
from cluster.load import PATIENCE_S
from cluster.pools import engine, engines, spec
from cluster.release import Release

ABSENT = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "k"}}}


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"image": "localhost/nothing:1"}, "ImagePullFailed", "localhost/nothing:1"),
        ({"args": ["--no-such-flag"]}, "CrashLoop", "--no-such-flag"),
        ({"env": [ABSENT]}, "ConfigurationError", 'secret "absent" not found'),
    ],
    ids=["image", "crash", "secret"],
)
async def test_a_sick_pool_says_why(
    cluster: Home, multipick: Release, neighbours: Namespace, changes: dict[str, Any], reason: str, words: str
) -> None:
    await neighbours.apply("sick", **spec(cluster.accelerator, replicas=1, engine=engine(**changes)))
    try:
        await neighbours.reaches("Available", "False", reason, "sick", PATIENCE_S)
        status = (await neighbours.call("GET", neighbours.pool_path("sick")))["status"]
        assert words in next(one["message"] for one in status["conditions"] if one["type"] == "Available")
    finally:
        await neighbours.call("DELETE", neighbours.pool_path("sick"))
        await until(lambda: engines(neighbours, "sick"), lambda found: not found, PATIENCE_S)
