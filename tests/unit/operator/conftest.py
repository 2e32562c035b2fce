"""Pools as the API server would hold them, for tests that need no API server."""

from collections.abc import Callable
from typing import Any

import pytest
from multipick_operator.api.engine import EngineType
from multipick_operator.api.pool import Pool, pool_of
from multipick_operator.children.context import Context, Defaults

DEFAULTS = Defaults(
    picker_image="example.com/multipick-epp:1",
    engine_images={
        EngineType.VLLM: "example.com/vllm:1",
        EngineType.SGLANG: "example.com/sglang:1",
        EngineType.SIMULATED: "example.com/multipick-sim:1",
    },
)


@pytest.fixture
def context() -> Context:
    return Context(DEFAULTS)


@pytest.fixture
def make_pool() -> Callable[..., Pool]:
    def make(**spec: Any) -> Pool:
        meta = {"namespace": "ml", "name": "p", "uid": "u-1", "generation": 3}
        return pool_of({"metadata": meta, "spec": {"model": {"uri": "hf://org/model"}} | spec})

    return make
