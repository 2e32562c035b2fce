"""The recordings of a real engine."""

from pathlib import Path

import pytest


@pytest.fixture
def fixtures() -> Path:
    return Path(__file__).parents[2] / "fixtures"
