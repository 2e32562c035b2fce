import os
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
        ("pool: {name: demo}\npolicy: lmetric\npool: {name: other}\n", "'pool' is there twice"),
        ("pool: {name: demo, models: [m], 'name': other}\n", "'name' is there twice"),
        ("pool: &p {name: demo, name: other}\n<<: *p\n", "'name' is there twice"),
        ("[" * 100_000, "nesting"),
        ("pool: {name: demo, models: [2026-13-01]}\n", "'2026-13-01': month must be in 1..12.*\n.*line 1, column 29"),
        ("pool:\n  name: demo\n  block_size: " + "9" * 5000, "line 3, column 15"),
        ("pool: {name: !!bool demo}\n", "'demo'.*\n.*line 1, column 14"),
        ("pool: {name: !!timestamp demo}\n", "'demo'.*\n.*line 1, column 14"),
        ("pool: {name: demo}\nevents: {media: {CPU: 1.5}}\n", "media"),
        ("pool: {name: demo}\nevents: {media: {CPU: -0.1}}\n", "media"),
        ("pool: {name: demo}\nevents: {media: {CPU: .nan}}\n", "media"),
        ("pool: {name: demo}\nevents: {media: {CPU: yes}}\n", "media"),
        ("pool: {name: demo}\nevents: {media: {gpu: 0.5}}\n", "GPU"),
        ("pool: {name: demo}\nevents: {media: {cpu: 0.5, CPU: 0.2}}\n", "twice"),
        ("pool: {name: demo}\nevents: {media: {'': 0.5}}\n", "media"),
        ("pool: {name: demo}\ncapture: {path: /c}\n", "capture: needs pool.secret_env"),
        ("pool: {name: demo, secret_env: S}\ncapture: {path: ''}\n", "path"),
        ("pool: {name: demo, secret_env: S}\ncapture: {path: /c, file_bytes: 10}\n", "file_bytes"),
        ("pool: {name: demo, secret_env: S}\ncapture: {path: /c, files: 1}\n", "files"),
        ("pool: {name: ''}\n", "name"),
        ("pool: {name: 'a b'}\n", "name"),
        ("pool: {name: 'a}b'}\n", "name"),
        ('pool: {name: "a\\n"}\n', "name"),
        ("pool: {name: demo, models: ['']}\n", "models"),
        ("pool: {name: demo}\nmetrics_path: metrics\n", "metrics_path"),
        ('pool: {name: demo}\nmetrics_path: "/a\\r\\nb: c"\n', "metrics_path"),
        ("pool: {name: demo}\nendpoints: [{address: '1.2.3.4:1', events: 'tcp://'}]\n", "events"),
        ("pool: {name: demo}\nendpoints: [{address: '1.2.3.4:1', replay: 'http://1.2.3.4:1'}]\n", "replay"),
        ("pool: {name: demo}\nendpoints: [{address: '1.2.3.4:1', events: 'tcp://1.2.3.4:65536'}]\n", "events"),
        ("pool: {name: demo}\nendpoints: [{address: '1.2.3.4:1', replay: 'tcp://1.2.3.4:99999'}]\n", "replay"),
        ("pool: {name: demo}\nendpoints_file: ''\n", "endpoints_file"),
        ('pool: {name: demo}\nendpoints_file: "a\\0"\n', "endpoints_file"),
        ("pool: {name: demo, tokenizer: ''}\n", "tokenizer"),
        ('pool: {name: demo}\nlisten: {tls: {mode: files, cert: "\\0", key: b}}\n', "cert"),
        ("pool: {name: demo}\nlimits: {max_body_bytes: -1}\n", "max_body_bytes"),
        ("pool: {name: demo}\nlimits: {max_read_bytes: 0}\n", "max_read_bytes"),
        ("pool: {name: demo}\nlimits: {max_kept_bytes: 9223372036854775807}\n", "max_kept_bytes"),
        ("pool: {name: demo}\nlimits: {drain_s: .inf}\n", "drain_s"),
        ("pool: {name: demo}\nscrape_s: 0.0000001\n", "scrape_s"),
        ("pool: {name: demo}\nkubernetes: {namespace: n, selector: {a: b}, ports: [0]}\n", "ports"),
        ("pool: {name: demo}\nkubernetes: {namespace: n, selector: {a: b}, ports: [80, 80]}\n", "ports"),
        ("pool: {name: demo}\nkubernetes: {namespace: '', selector: {a: b}, ports: [80]}\n", "namespace"),
        ("pool: {name: demo}\nkubernetes: {namespace: ../x, selector: {a: b}, ports: [80]}\n", "namespace"),
        ("pool: {name: demo}\nkubernetes: {namespace: n, selector: {a: 'b,c'}, ports: [80]}\n", "selector"),
        ("pool: {name: demo}\nkubernetes: {namespace: n, selector: {'!a': b}, ports: [80]}\n", "selector"),
        ('pool: {name: demo}\ninference_pool: {namespace: n, name: "p\\n"}\n', "name"),
        ("pool: {name: demo}\nworkers: 0\n", "workers"),
        ("pool: {name: demo}\nworkers: 65\n", "workers"),
        ("pool: {name: demo}\nworkers: 1.5\n", "workers"),
        ("pool: {name: demo}\nworkers: 2\nlisten: {transport: grpc}\n", "transport h2"),
        ("pool: {name: demo, secret_env: S}\nworkers: 2\ncapture: {path: /c, files: 3}\n", "2 files or more"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(config.ConfigError, match=where):
        config.load(write(tmp_path, text))


def test_what_is_merged_may_be_said_anew(tmp_path: Path) -> None:
    first = "{address: '1.2.3.4:8000', events: 'tcp://1.2.3.4:5557'}"
    second = "{<<: *e, events: 'tcp://1.2.3.4:5558'}"
    third = "{<<: *f, address: '1.2.3.5:8000'}"  # of one that itself says anew
    text = f"pool: {{name: demo}}\nendpoints: [&e {first}, &f {second}, {third}]\n"
    endpoints = config.load(write(tmp_path, text)).endpoints
    assert [(each.address, each.events) for each in endpoints] == [
        ("1.2.3.4:8000", "tcp://1.2.3.4:5557"),
        ("1.2.3.4:8000", "tcp://1.2.3.4:5558"),
        ("1.2.3.5:8000", "tcp://1.2.3.4:5558"),
    ]


def test_media_count_by_the_engines_names_in_capitals_and_by_default_none_does(tmp_path: Path) -> None:
    assert config.load(write(tmp_path, "pool: {name: demo}\n")).events.medium_weights == {}
    media = "{cpu_pinned: 0.5, DISK: 0, Storage: 1}"
    loaded = config.load(write(tmp_path, f"pool: {{name: demo}}\nevents: {{media: {media}}}\n"))
    assert loaded.events.medium_weights == {"CPU_PINNED": 0.5, "STORAGE": 1.0}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"nowhere\.yaml"):
        config.load(tmp_path / "nowhere.yaml")


def test_a_configured_secret_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOL_SECRET", "s3cret")
    assert config.secret("POOL_SECRET") == b"s3cret"
    monkeypatch.setenv("POOL_SECRET", os.fsdecode(b"\xff" + "ő".encode()))
    assert config.secret("POOL_SECRET") == b"\xff" + "ő".encode(), "the bytes that were set, text or not"
    assert config.secret(None) == b""
    monkeypatch.delenv("POOL_SECRET")
    with pytest.raises(config.ConfigError, match="POOL_SECRET"):
        config.secret("POOL_SECRET")
