"""What the command refuses before anything is started."""

from pathlib import Path

import pytest
from multipick_epp.app.cli import check
from multipick_epp.config import Config, ConfigError, Pool, StaticEndpoint


def of_the_model(folder: Path, mode: str = "auto") -> Config:
    pool = Pool("demo", tokenizer=str(folder), tokenizer_mode=mode)  # type: ignore[arg-type]
    return Config(pool, (StaticEndpoint("127.0.0.1:8000"),))


@pytest.mark.parametrize("file", ["tokenizer.json", "tekken.json", "tokenizer.model.v3"])
def test_a_folder_with_any_file_that_models_have_is_taken(file: str, tmp_path: Path) -> None:
    (tmp_path / file).touch()
    check(of_the_model(tmp_path))


@pytest.mark.parametrize(("files", "mode"), [([], "auto"), (["config.json"], "auto"), (["tekken.json"], "hf")])
def test_a_folder_without_one_is_refused(files: list[str], mode: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        check(of_the_model(tmp_path, mode))


def test_a_shadow_that_is_no_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="no policy 'nope'"):
        check(Config(Pool("demo"), shadow=("llm-d", "nope")))
