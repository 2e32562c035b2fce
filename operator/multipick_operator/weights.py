"""The init step that fetches a model's weights, once a cache volume: `python3 weights.py URI FOLDER [REVISION]`.

It stands alone: it runs in the engine's own image, by that image's `huggingface_hub` or `boto3`, whose environment
variables (HF_TOKEN, HF_ENDPOINT, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...) count. Of several pods with one volume the
first fetches and the others wait; one that died amid it is gone on from. `GET /` on PORT tells how far it is.
"""

import fcntl
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

PORT = 8099
DONE = ".multipick-fetched"  # in the folder, when all of it is there
ASK_LOCK_S = 1.0


class Progress:
    """How far the step is: bytes that are there, and all of them where that is known."""

    def __init__(self, folder: Path) -> None:
        self.state = "starting"
        self.total = 0
        self._folder = folder

    def told(self) -> bytes:
        """As JSON."""
        return json.dumps({"state": self.state, "done": _size(self._folder), "total": self.total}).encode()


def main(uri: str, folder: Path, revision: str | None, port: int = PORT) -> None:
    """Return when the weights are there. Raises what the client library raises."""
    progress = Progress(folder)
    _serve(progress, port)
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / DONE
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        progress.state = "waiting"
        _wait_for(lock)
        if not done.exists():
            progress.state = "fetching"
            fetch = _from_s3 if uri.startswith("s3://") else _from_hub
            fetch(uri, folder, revision, progress)
            done.write_text(uri)
    print(f"{uri}: {_size(folder)} bytes in {folder}")


def _from_hub(uri: str, folder: Path, revision: str | None, progress: Progress) -> None:
    from huggingface_hub import HfApi, snapshot_download

    name = uri.removeprefix("hf://")
    files = HfApi().model_info(name, revision=revision, files_metadata=True).siblings or []
    progress.total = sum(one.size or 0 for one in files)
    snapshot_download(name, revision=revision, local_dir=folder)


def _from_s3(uri: str, folder: Path, _: str | None, progress: Progress) -> None:
    import boto3

    bucket, _, prefix = uri.removeprefix("s3://").rstrip("/").partition("/")
    prefix = f"{prefix}/" if prefix else ""
    client = boto3.client("s3")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    objects: list[dict[str, Any]] = [one for page in pages for one in page.get("Contents", [])]
    files = [one for one in objects if not one["Key"].endswith("/")]
    if not files:
        raise FileNotFoundError(f"{uri}: nothing is there")
    progress.total = sum(one["Size"] for one in files)
    for one in files:
        target = (folder / one["Key"].removeprefix(prefix)).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise ValueError(f"{one['Key']}: leads out of the folder")
        if target.exists() and target.stat().st_size == one["Size"]:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        client.download_file(bucket, one["Key"], str(part))
        part.rename(target)


def _wait_for(lock: IO[str]) -> None:
    """The kernel lets go of it for a process that dies, and the file system for a node."""
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(ASK_LOCK_S)
        else:
            return


def _serve(progress: Progress, port: int) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = progress.told()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads these lines."""

    try:
        server = ThreadingHTTPServer(("", port), Page)
    except OSError as error:  # taken by another pod, where pods have the network of their node
        print(f"how far this is can't be asked: {error}")
    else:
        threading.Thread(target=server.serve_forever, daemon=True).start()


def _size(folder: Path) -> int:
    """Bytes below the folder, those of unfinished files too."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:  # renamed meanwhile
                continue
    return total


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
