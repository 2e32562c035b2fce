"""What the command refuses before anything is started."""

import os
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from multipick_epp.app.cli import check
from multipick_epp.config import Config, ConfigError, Pool, StaticEndpoint
from multipick_epp.policy import registry


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


@pytest.mark.parametrize("name", ["nope", "linear:x", "linear:", "linear:2", "linear:nan", "lmetric:1"])
def test_a_policy_that_is_none_is_refused_by_field_and_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^policy: .*{name}"):
        check(Config(Pool("demo"), policy=name))
    with pytest.raises(ConfigError, match=f"^shadow: .*{name}"):
        check(Config(Pool("demo"), shadow=("llm-d", name)))


@pytest.mark.parametrize("declared", ["no_such_package.at_all:rank", "random:no_such_function", "random"])
def test_a_policy_whose_package_has_none_is_refused_by_name(declared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda **_: [EntryPoint("mine", declared, registry.GROUP)])
    with pytest.raises(ConfigError, match=r"^policy: 'mine' .*(no_such|random)"):
        check(Config(Pool("demo"), policy="mine"))


def test_a_shadow_that_is_no_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="no policy 'nope'"):
        check(Config(Pool("demo"), shadow=("llm-d", "nope")))


def test_a_password_that_is_no_text_is_refused_and_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", os.fsdecode(b"hunter\xff"))
    config = Config(Pool("chat"), state="redis://127.0.0.1", state_password_env="PASSWORD")
    with pytest.raises(ConfigError, match="PASSWORD is not UTF-8") as raised:
        check(config)
    assert "hunter" not in str(raised.value)
    assert raised.value.__suppress_context__
