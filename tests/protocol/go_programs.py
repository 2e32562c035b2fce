"""Programs in Go that test us from outside, built from modules into a cache, once a machine.

`go.mod` and `go.sum` in the folders of `go/` name every version; the cache's folders are keyed by their contents.

    python tests/protocol/go_programs.py  # builds them
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent / "go"
PACKAGES = {"h2spec": "github.com/summerwind/h2spec/cmd/h2spec", "client": "."}


class UnavailableError(Exception):
    """The program can't be had here; the message says why."""


def program(name: str) -> Path:
    """Its path. Raises UnavailableError without Go, or without the modules; RuntimeError where it doesn't build."""
    sources = sorted(each for each in (HERE / name).iterdir() if each.is_file())
    digest = hashlib.sha256(b"".join(each.read_bytes() for each in sources)).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "multipick"
    folder = cache / f"{name}-{digest}"
    target = folder / name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():  # else another process built it while we waited
            _build(name, target)
    return target


def _build(name: str, target: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise UnavailableError(f"no Go here to build {name} with")
    part = target.with_suffix(".part")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
        command = [go or "", *arguments]
        return subprocess.run(command, cwd=HERE / name, env=environment, capture_output=True, text=True, check=False)

    loaded = run("list", "-deps", PACKAGES[name])  # downloads what it imports
    if loaded.returncode:
        raise UnavailableError(f"the modules of {name} can't be had: {loaded.stderr[-500:]}")
    built = run("build", "-o", str(part), PACKAGES[name])
    if built.returncode:
        raise RuntimeError(f"{name} can't be built: {built.stderr[-500:]}")
    part.rename(target)


if __name__ == "__main__":
    try:
        for each in PACKAGES:
            print(program(each))
    except UnavailableError as error:
        sys.exit(str(error))
