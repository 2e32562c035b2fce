"""The command line of `multipick epp`: a file, or what manifests of other pickers say."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pytest
from multipick_epp.app import flags
from multipick_epp.app.cli import command
from multipick_epp.config import Config, ConfigError, InferencePoolName, ListenTls, Pool

SUITE = ["--pool-name=primary", "--pool-namespace=ns", "--zap-encoder=json", "--grpc-port=9002"]
"""As the conformance suite's manifests have them."""


def parsed(*argv: str, config: Config | None = None) -> Config:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--conformance", action="store_true")
    flags.add_flags(parser)
    options, unknown = parser.parse_known_args(argv)
    flags.check_unknown(unknown)
    return flags.with_flags(config, options)


def test_a_pool_by_name_is_all_that_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMESPACE", "mine")
    config = parsed("--pool-name", "p")
    assert config.pool.name == "p"
    assert config.inference_pool == InferencePoolName("p", "mine")
    assert config.listen.tls == ListenTls("self-signed")  # as the reference picker
    assert (config.listen.ext_proc, config.listen.health, config.listen.admin) == (9002, 9003, 9090)
    assert not config.conformance


@pytest.mark.requirement("suite: The picker takes the flags of the suite's manifests.")
def test_the_flags_of_the_conformance_suite() -> None:
    config = parsed(*SUITE, "--grpc-health-port", "19003", "--metrics-port", "0", "--conformance")
    assert config.inference_pool == InferencePoolName("primary", "ns")
    assert (config.listen.ext_proc, config.listen.health, config.listen.admin) == (9002, 19003, 0)
    assert config.log_format == "json"
    assert config.conformance


@pytest.mark.parametrize(
    ("said", "tls"),
    [
        (["--secure-serving"], ListenTls("self-signed")),
        (["--secure-serving=true"], ListenTls("self-signed")),
        (["--secure-serving=false"], ListenTls("off")),
        (["--cert-path=/certs"], ListenTls("files", "/certs/tls.crt", "/certs/tls.key")),
        (["--cert-path=/certs", "--enable-cert-reload=true"], ListenTls("files", "/certs/tls.crt", "/certs/tls.key")),
    ],
)
def test_tls(said: Sequence[str], tls: ListenTls) -> None:
    assert parsed("--pool-name=p", *said).listen.tls == tls


def test_what_is_done_anyway_is_taken() -> None:
    said = [
        *("--health-checking", "--ha-enable-leader-election=true", "--zap-devel", "--tracing=false"),
        *("--endpoint-target-ports", "8000,8001", "--enable-pprof=false", "--metrics-endpoint-auth=false"),
    ]
    assert parsed("--pool-name=p", *said) == parsed("--pool-name=p")


@pytest.mark.parametrize(
    ("said", "level"), [("--v=4", "debug"), ("--v=1", "info"), ("--zap-log-level=error", "error"), ("-v=2", "debug")]
)
def test_how_much_is_logged(said: str, level: str) -> None:
    assert parsed("--pool-name=p", said).log_level == level


def test_times_are_written_as_in_go() -> None:
    config = parsed("--pool-name=p", "--drain-timeout=1m30s", "--refresh-metrics-interval=50ms")
    assert (config.limits.drain_s, config.scrape_s) == (90.0, 0.05)


def test_flags_change_what_a_file_says() -> None:
    file = Config(Pool("models", ("m",)), listen=Config(Pool("x")).listen)
    config = parsed("--pool-name=p", "--pool-namespace=n", "--grpc-port=1", config=file)
    assert config.pool == file.pool
    assert config.inference_pool == InferencePoolName("p", "n")
    assert config.listen.ext_proc == 1
    assert config.listen.tls == ListenTls("off")  # what the file says, or leaves at


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (["--config-text=x"], "plugins of another picker"),
        (["--pool-name=p", "--unheard-of"], "--unheard-of is not known here"),
        (["--pool-name=p", "stray"], "stray is not known here"),
        (["--grpc-port=1"], "--config FILE, or --pool-name"),
        (["--pool-name=p", "--pool-group=inference.networking.x-k8s.io"], "only inference.networking.k8s.io"),
        (["--pool-name=p", "--tracing"], "no traces"),
        (["--pool-name=p", "--metrics-endpoint-auth=true"], "NetworkPolicy"),
        (["--pool-name=P!"], "--pool-name"),
        (["--pool-name=p", "--pool-namespace=../x"], "namespace"),
        (["--pool-name=p", "--grpc-port=70000"], "ext_proc"),
        (["--pool-name=p", "--workers=0"], "workers"),
        (["--pool-name=p", "--secure-serving=false", "--cert-path=/c"], "--cert-path"),
        (["--pool-name=p", "--zap-log-level=loud"], "loud"),
    ],
)
def test_what_is_neither_done_nor_known_is_refused_with_a_hint(said: Sequence[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parsed(*said)


@pytest.mark.parametrize(
    "said", [["--drain-timeout=soon"], ["--drain-timeout=1"], ["--secure-serving=maybe"], ["--v=x"]]
)
def test_a_value_that_is_none_ends_the_command(said: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(["--pool-name=p", *said])
    assert said[0].partition("=")[0].lstrip("-") in capsys.readouterr().err


def test_a_file_with_endpoints_has_no_pool_besides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("pool: {name: a}\nendpoints: [{address: '127.0.0.1:1'}]\n")
    assert command(["--config", str(file), "--check"]) == 0
    assert command(["--config", str(file), "--pool-name=p", "--check"]) == 2
    assert "other endpoints" in capsys.readouterr().err
    file.write_text(
        "pool: {name: a}\ninference_pool: {name: p, namespace: n}\n"
        "kubernetes: {namespace: n, selector: {a: b}, ports: [1]}\n"
    )
    assert command(["--config", str(file), "--check"]) == 2
    assert "only one of them" in capsys.readouterr().err


def test_workers_without_a_shared_state_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MULTIPICK_STATE_URL", raising=False)
    file = tmp_path / "c.yaml"
    file.write_text("pool: {name: a}\nendpoints: [{address: '127.0.0.1:1'}]\n")
    assert command(["--config", str(file), "--check", "--workers=2"]) == 2
    assert "a state that they share" in capsys.readouterr().err
    monkeypatch.setenv("MULTIPICK_STATE_URL", "redis://127.0.0.1:1")
    assert command(["--config", str(file), "--check", "--workers=2"]) == 0
