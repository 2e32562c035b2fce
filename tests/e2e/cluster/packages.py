"""What the node and the images need of the machine: Debian packages, installed where they lack, and the kernel's leave.

Everything that a machine can't have is told by UnavailableError before anything is started: a suite that skips for
one of these reasons has proven nothing wrong, one that fails later has.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

from cluster.build import UnavailableError

PLUGINS = Path("/usr/lib/cni")
NODE: Mapping[str, str] = {
    "runc": "runc",
    f"{PLUGINS}/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "busybox": "busybox-static",
    "ip": "iproute2",
    "mount": "mount",
    "openssl": "openssl",
}
IMAGES: Mapping[str, str] = {"buildah": "buildah", "debootstrap": "debootstrap"}
_CGROUP_ROOTS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))


def provide(packages: Mapping[str, str]) -> None:
    """Have these programs, by name or path, each from its Debian package. Raises UnavailableError."""
    lacking = sorted({package for program, package in packages.items() if not shutil.which(program)})
    if not lacking:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise UnavailableError(f"a real node needs root and the Debian packages {' '.join(lacking)}")
    print(f"installing {' '.join(lacking)}", file=sys.stderr, flush=True)
    for command in (["update", "--quiet"], ["install", "--quiet", "--yes", "--no-install-recommends", *lacking]):
        done = subprocess.run(
            ["apt-get", *command],
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise UnavailableError(f"{' '.join(lacking)} can't be installed: {done.stderr[-300:]}")


def check_kernel() -> None:
    """Try what containers need: cgroups, mounts, an overlay, a bridge, address translation. Raises UnavailableError."""
    if os.geteuid() != 0:
        raise UnavailableError("a real node needs root")
    with tempfile.TemporaryDirectory(prefix="mpk-") as folder, contextlib.ExitStack() as stack:
        _try_cgroup()
        mount = Path(folder) / "overlay"
        for name in ("lower", "upper", "work", "overlay"):
            (Path(folder) / name).mkdir()
        layers = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        _try("mount an overlay", "mount", "-t", "overlay", "overlay", "-o", layers, str(mount))
        stack.callback(subprocess.run, ["umount", str(mount)], check=False)
        bridge = f"mpk{uuid.uuid4().hex[:8]}"
        _try("make a bridge", "ip", "link", "add", bridge, "type", "bridge")
        stack.callback(subprocess.run, ["ip", "link", "delete", bridge], check=False)
        for table in ("nat", "filter", "mangle"):
            _try(f"use the iptables table {table}", "iptables", "-t", table, "-L", "-n")


def _try_cgroup() -> None:
    root = next((root for root in _CGROUP_ROOTS if root.is_dir()), None)
    try:
        if root is None:
            raise FileNotFoundError(_CGROUP_ROOTS[-1])
        made = root / f"mpk-{uuid.uuid4().hex[:8]}"
        made.mkdir()
        made.rmdir()
    except OSError as error:
        raise UnavailableError(f"this machine does not let a node make cgroups: {error}") from error


def _try(what: str, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"this machine does not let a node {what}: {done.stderr.strip()[-300:]}")
