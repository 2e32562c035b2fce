"""What several suites use."""

import shutil
from pathlib import Path

import msgspec
import pytest
from multipick_sim.assets import MODEL_DIR


@pytest.fixture
def other_model(tmp_path: Path) -> Path:
    """The simulated engines' model with another chat template: what an engine's --chat-template does."""
    other = tmp_path / "other-model"
    shutil.copytree(MODEL_DIR, other)
    file = other / "tokenizer_config.json"
    config = msgspec.json.decode(file.read_bytes())
    config["chat_template"] = "<|im_start|>system\nBe brief.<|im_end|>\n" + config["chat_template"]
    file.write_bytes(msgspec.json.encode(config))
    return other
