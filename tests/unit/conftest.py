"""What tests of several rooms need."""

from collections.abc import AsyncIterator

import pytest
from multipick_epp.engines import EngineClient


@pytest.fixture
async def engines() -> AsyncIterator[EngineClient]:
    """A client that engines are asked by."""
    client = EngineClient()
    await client.start()
    yield client
    await client.close()
