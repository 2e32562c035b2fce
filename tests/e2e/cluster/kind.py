"""A kind cluster with our images, for machines that have docker."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster.build import UnavailableError

ROOT = Path(__file__).parents[3]
NAME = "multipick-e2e"


@contextlib.contextmanager
def kind(tag: str) -> Iterator[Path]:
    """A cluster's kubeconfig; its node has `multipick/operator` and `multipick/epp`. The cluster is deleted afterwards.

    Raises UnavailableError without kind or a docker that answers.
    """
    for program in ("docker", "kind"):
        if not shutil.which(program):
            raise UnavailableError(f"make e2e-kind needs {program}, which is not here")
    asked = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise UnavailableError(f"make e2e-kind needs docker, which does not answer: {asked.stderr.strip()[-200:]}")
    _run("make", "images", "BUILDER=docker", "REGISTRY=multipick", f"TAG={tag}")
    with tempfile.TemporaryDirectory(prefix="mpk-") as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        try:
            _run("kind", "create", "cluster", "--name", NAME, "--kubeconfig", str(kubeconfig), "--wait", "180s")
            _run("kind", "load", "docker-image", "--name", NAME, f"multipick/operator:{tag}", f"multipick/epp:{tag}")
            yield kubeconfig
        finally:
            _run("kind", "delete", "cluster", "--name", NAME)


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} …: {done.stderr[-1500:]}")
