"""`multipick operator` as a process, without a cluster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from multipick_operator.cli import parser

MULTIPICK = (sys.executable, "-c", "import sys; from multipick_cli.main import main; sys.exit(main())")
NO_CLUSTER = """
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: other, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
"""


@pytest.mark.parametrize("text", ["", "[", "a: 1", "contexts: 7", "\0", NO_CLUSTER])
def test_who_has_no_credentials_is_told_so_in_a_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    environment = os.environ | {"KUBECONFIG": str(file)}
    environment.pop("KUBERNETES_SERVICE_HOST", None)
    done = subprocess.run(
        [*MULTIPICK, "operator", "--picker-image", "i", "--port", "0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "gives access to a cluster" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--state-url", "redis:/valkey"),
        ("--state-url", "http://valkey"),
        ("--state-url", "redis://:hunter2@valkey:6379"),
        ("--state-url", "redis://valkey:70000"),
        ("--picker-image", "https://registry/hunter2"),
        ("--vllm-image", ""),
        ("--resync", "0"),
        ("--resync", "nan"),
        ("--resync", "inf"),
        ("--port", "65536"),
        ("--port", "-1"),
    ],
)
def test_a_value_that_can_not_be_is_refused_at_the_start_and_not_quoted(
    option: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["--picker-image", "i", f"{option}={text}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {option}: " in said
    assert "hunter2" not in said


def test_what_the_chart_gives_is_taken() -> None:
    given = ["--picker-image=registry.example.com:5000/multipick/epp:v1@sha256:" + 64 * "0", "--resync=120", "--port=0"]
    options = parser().parse_args([*given, "--state-url=redis://multipick-valkey.multipick.svc:6379"])
    assert options.picker_image_pull_policy is None
    assert (options.resync, options.port) == (120.0, 0)
    assert options.state_url == "redis://multipick-valkey.multipick.svc:6379"
