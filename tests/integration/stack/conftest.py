"""Whole pools for the tests of this folder: see `stacks`."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio
from multipick_sim.local.bootstrap import Style
from stacks.stack import Plan, Stack, running_stack


class StartStack(Protocol):
    """Starts what a `Plan` with these fields says."""

    async def __call__(
        self,
        style: Style = ...,
        *,
        pods: int = ...,
        pickers: int = ...,
        flags: Sequence[object] = ...,
        each: Sequence[Sequence[object]] = ...,
        config: Mapping[str, object] = ...,
        store: Mapping[str, str] = ...,
        threads: int = ...,
    ) -> Stack: ...


@pytest.fixture
async def start_stack(tmp_path: Path) -> AsyncIterator[StartStack]:
    """For tests that break something."""
    async with AsyncExitStack() as started:

        async def start(style: Style = "standalone", **fields: Any) -> Stack:
            return await started.enter_async_context(running_stack(tmp_path, Plan(style, **fields)))

        yield start


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["standalone", "gateway"])
async def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """One for all tests of a module that leave it as it was, in both styles of gateway."""
    folder = tmp_path_factory.mktemp(request.param)
    async with running_stack(folder, Plan(request.param, flags=("--lora", "tuned"))) as running:
        yield running
