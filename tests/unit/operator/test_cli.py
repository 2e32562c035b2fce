"""`multipick operator` as a process, without a cluster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
