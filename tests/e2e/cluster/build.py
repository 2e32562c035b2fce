"""Kubernetes' own programs, built from Go modules into a cache outside the tree.

`go.mod` and `go.sum` in `controlplane/` name every version; the cache's folder is keyed by their contents, so that a
build is made once a machine. Run this file to build with progress; tests call `binaries`.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
VERSION = "v1.36.3"
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
API_SERVER = ("etcd", "kube-apiserver", "kube-controller-manager")


class UnavailableError(Exception):
    """The programs can't be had here; the message says why."""


def binaries(names: Sequence[str]) -> dict[str, Path]:
    """Paths of the programs: those of `KUBEBUILDER_ASSETS` where it has them, else from the cache, built if need be.

    Raises UnavailableError where something has to be built and Go is missing, or the build fails.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    found = {name: Path(assets) / name for name in names if assets and (Path(assets) / name).exists()}
    folder = _folder()
    found |= {name: folder / "bin" / name for name in names if name not in found and (folder / "bin" / name).exists()}
    if missing := [name for name in names if name not in found]:
        with _lock(folder):
            found |= {name: _build(folder, name) for name in missing}
    return found


def cache() -> Path:
    """Where what is built stays between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "multipick"


def module_folder(module: str, version: str) -> Path:
    """The unpacked source of a Go module, downloaded if need be. Raises UnavailableError."""
    _go()
    done = subprocess.run(
        ["go", "mod", "download", "-json", f"{module}@{version}"], capture_output=True, text=True, cwd="/", check=False
    )
    if done.returncode:
        raise UnavailableError(f"{module}@{version} can't be downloaded: {done.stdout[-300:]} {done.stderr[-300:]}")
    line = next(line for line in done.stdout.splitlines() if '"Dir"' in line)
    return Path(line.split('"')[3])


def _folder() -> Path:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((HERE / "controlplane" / name).read_bytes())
    return cache() / f"controlplane-{digest.hexdigest()[:12]}"


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        raise UnavailableError("no Go here to build Kubernetes with, and KUBEBUILDER_ASSETS doesn't have it")
    return go


def _build(folder: Path, name: str) -> Path:
    target = folder / "bin" / name
    if target.exists():  # another process built it while we waited for the lock
        return target
    source = folder / "src"
    source.mkdir(parents=True, exist_ok=True)
    for file in ("go.mod", "go.sum"):
        shutil.copy(HERE / "controlplane" / file, source / file)
    _, major, minor = VERSION.replace("v", ".").split(".")[:3]
    flags = f"-s -w -X k8s.io/component-base/version.gitVersion={VERSION}"
    flags += f" -X k8s.io/component-base/version.gitMajor={major} -X k8s.io/component-base/version.gitMinor={minor}"
    part = target.with_suffix(".part")
    command = [_go(), "build", "-ldflags", flags, "-o", str(part), PACKAGES[name]]
    environment = os.environ | {"GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
    print(f"building {name} {VERSION} (once a machine)", file=sys.stderr, flush=True)
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{name} can't be built: {done.stderr[-500:]}")
    part.rename(target)
    return target


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One build at a time on this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        for program in binaries(sys.argv[1:] or list(API_SERVER)).values():
            print(program)
    except UnavailableError as error:
        sys.exit(str(error))
