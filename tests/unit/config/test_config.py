from pathlib import Path

import pytest
from multipick_epp import config


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "epp.yaml"
    path.write_text(text)
    return path


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, "pool: {name: demo, models: [m]}\nendpoints: [{address: '1.2.3.4:8000'}]\n"))
    assert loaded.pool.models == ("m",)
    assert loaded.policy == "lmetric"
    assert loaded.limits.decision_s == 0.1


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("pool: {name: demo}\npolcy: lmetric\n", "polcy"),
        ("pool: {name: demo}\nlisten: {ext_proc: 70000}\n", "ext_proc"),
        ("pool: {}\n", "name"),
        ("pool: {name: demo}\nlimits: {decision_s: 0}\n", "decision_s"),
        ("pool: [\n", "epp.yaml"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(config.ConfigError, match=where):
        config.load(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"nowhere\.yaml"):
        config.load(tmp_path / "nowhere.yaml")


def test_a_configured_secret_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOL_SECRET", "s3cret")
    assert config.secret("POOL_SECRET") == b"s3cret"
    assert config.secret(None) == b""
    monkeypatch.delenv("POOL_SECRET")
    with pytest.raises(config.ConfigError, match="POOL_SECRET"):
        config.secret("POOL_SECRET")
