"""A peer that has shaken hands."""

import pytest

from tests.unit.http2.peer import Peer


@pytest.fixture
def peer() -> Peer:
    return Peer().greet()
