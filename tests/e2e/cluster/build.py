"""Programs of Kubernetes, containerd, CoreDNS and gateways, built from Go modules into a cache outside the tree.

`go.mod` and `go.sum` in the folders beside name every version; the cache's folders are keyed by their contents, so that
a build is made once a machine. Run this file to build with progress; tests call `binaries`.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
VERSION = "v1.36.3"
API_SERVER = ("etcd", "kube-apiserver", "kube-controller-manager")
NODE = ("kube-scheduler", "kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr", "coredns")


@dataclass(frozen=True, slots=True)
class Module:
    """A folder beside this file with a go.mod and a go.sum, and what is built from it."""

    name: str
    packages: Mapping[str, str]
    flags: tuple[str, ...]
    verb: tuple[str, ...] = ("build",)


_, MAJOR, MINOR = VERSION.replace("v", ".").split(".")[:3]
_SET = "-X k8s.io/component-base/version"
_GATEWAY_API = "sigs.k8s.io/gateway-api"
MODULES = (
    Module(
        "controlplane",
        {"etcd": "go.etcd.io/etcd/server/v3"}
        | {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
                "kubectl",
            )
        },
        ("-ldflags", f"-s -w {_SET}.gitVersion={VERSION} {_SET}.gitMajor={MAJOR} {_SET}.gitMinor={MINOR}"),
    ),
    Module(
        "containerd",
        {
            name: f"github.com/containerd/containerd/v2/cmd/{name}"
            for name in ("containerd", "containerd-shim-runc-v2", "ctr")
        },
        ("-tags", "no_btrfs,no_zfs,no_devmapper", "-ldflags", "-s -w"),
    ),
    Module("coredns", {"coredns": "github.com/coredns/coredns"}, ("-ldflags", "-s -w")),
    Module("istiod", {"pilot-discovery": "istio.io/istio/pilot/cmd/pilot-discovery"}, ("-ldflags", "-s -w")),
    Module("envoygateway", {"envoy-gateway": "github.com/envoyproxy/gateway/cmd/envoy-gateway"}, ("-ldflags", "-s -w")),
    Module("extension", {"echo-basic": f"{_GATEWAY_API}/conformance/echo-basic"}, ("-ldflags", "-s -w")),
    Module("extension", {"conformance.test": f"{_GATEWAY_API}-inference-extension/conformance"}, (), ("test", "-c")),
)


class UnavailableError(Exception):
    """The programs can't be had here; the message says why."""


def binaries(names: Sequence[str]) -> dict[str, Path]:
    """Paths of the programs: those of `KUBEBUILDER_ASSETS` where it has them, else from the cache, built if need be.

    Raises UnavailableError where something has to be built and Go or the modules can't be had.
    """
    assets = Path(os.environ["KUBEBUILDER_ASSETS"]) if "KUBEBUILDER_ASSETS" in os.environ else None
    found = {}
    for name in names:
        module = next(one for one in MODULES if name in one.packages)
        if assets and (assets / name).exists():
            found[name] = assets / name
        else:
            found[name] = _built(module, name)
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


def _folder(module: Module) -> Path:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((HERE / module.name / name).read_bytes())
    return cache() / f"{module.name}-{digest.hexdigest()[:12]}"


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        raise UnavailableError("no Go here to build a cluster's programs with, and KUBEBUILDER_ASSETS lacks them")
    return go


def _built(module: Module, name: str) -> Path:
    folder = _folder(module)
    target = folder / "bin" / name
    if target.exists():
        return target
    with _lock(folder):
        if not target.exists():  # else another process built it while we waited
            _build(module, folder / "src", target)
    return target


def _build(module: Module, source: Path, target: Path) -> None:
    source.mkdir(parents=True, exist_ok=True)
    for file in ("go.mod", "go.sum"):
        shutil.copy(HERE / module.name / file, source / file)
    part = target.with_suffix(".part")
    environment = os.environ | {"GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}

    def go(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [_go(), *arguments]
        return subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)

    package = module.packages[target.name]
    print(f"building {target.name} (once a machine)", file=sys.stderr, flush=True)
    loaded = go("list", "-deps", package)  # downloads what the package imports
    if loaded.returncode:
        raise UnavailableError(f"the modules of {target.name} can't be had: {loaded.stderr[-500:]}")
    done = go(*module.verb, *module.flags, "-o", str(part), package)
    if done.returncode:
        raise RuntimeError(f"{target.name} can't be built: {done.stderr[-500:]}")
    part.rename(target)


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
