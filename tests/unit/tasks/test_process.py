"""A process of our own, whatever surrounds it."""

import asyncio
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from multipick_epp.tasks.process import KeptProcess, write

REPORTING = """\
import json, os, sys
reports = os.fdopen(int(sys.argv[1]), "w")
reports.write(json.__file__ + "\\n")
reports.flush()
sys.stdin.read()
"""


class Hearing:
    """The first that a process says, or why it ended before."""

    def __init__(self) -> None:
        self.first: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def open(self) -> Sequence[socket.socket]:
        return ()

    async def tell(self, process: asyncio.StreamWriter) -> None:
        await write(process, b"{}")
        await asyncio.Event().wait()

    def hear(self, line: bytes) -> None:
        if not self.first.done():
            self.first.set_result(line.decode().strip())

    def ended(self, why: str) -> None:
        if not self.first.done():
            self.first.set_result(why)


async def test_a_file_in_the_folder_of_whoever_started_it_is_none_of_its_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules, folder = tmp_path / "modules", tmp_path / "folder"
    modules.mkdir()
    folder.mkdir()
    (modules / "reporting.py").write_text(REPORTING)
    (folder / "json.py").write_text("raise SystemExit('somebody else')\n")
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.chdir(folder)
    hearing = Hearing()
    process = KeptProcess("reporting", "reporting", hearing)
    process.start()
    try:
        found = await hearing.first
    finally:
        await process.close()
    assert Path(found).is_relative_to(sys.base_prefix), found
