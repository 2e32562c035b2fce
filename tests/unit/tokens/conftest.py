from collections.abc import Iterator
from pathlib import Path

import pytest
from multipick_epp.tokens import Tokenizer

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    return FIXTURES / "tiny-model"


@pytest.fixture
def tokenizer(tiny_model: Path) -> Iterator[Tokenizer]:
    tokenizer = Tokenizer.load(tiny_model)
    yield tokenizer
    tokenizer.close()
