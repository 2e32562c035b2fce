import errno
import os
import time
from pathlib import Path

import pytest
from multipick_epp.capture.files import Folder, TooLong

LINE = b"x" * 99 + b"\n"


def sizes(path: Path) -> list[int]:
    return [file.stat().st_size for file in sorted(path.glob("*.jsonl"))]


def test_a_full_file_is_followed_by_another_and_the_oldest_goes(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "new" / "capture", "me", 250, 3)
    for _ in range(13):
        folder.append(LINE)
    folder.close()
    assert sizes(tmp_path / "new" / "capture") == [200, 200, 100]


def test_no_file_grows_beyond_its_bound_for_a_long_line(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "me", 250, 3)
    for count in (1, 2, 1, 2):
        folder.append(LINE * count)
    with pytest.raises(TooLong):
        folder.append(LINE * 3)
    assert sizes(tmp_path) == [200, 100, 200]


def test_a_clock_that_was_set_back_deletes_nothing_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are the older the earlier they were begun, whatever the time was."""
    before = Folder(tmp_path, "before", 100, 3)
    for _ in range(3):
        before.append(b"b" * 99 + b"\n")
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    folder = Folder(tmp_path, "me", 100, 3)
    folder.append(LINE)
    folder.append(LINE)
    assert [file.read_bytes()[:1] for file in sorted(tmp_path.iterdir())] == [b"b", b"x", b"x"]


def test_files_of_pickers_that_are_gone_count_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for _ in range(5):
        before = Folder(tmp_path, "gone", 100, 3)
        before.append(LINE)
        before.close()
    folder = Folder(tmp_path, "me", 100, 3)
    folder.append(LINE)
    assert sizes(tmp_path) == [100, 100, 100]
    assert (tmp_path / "notes.txt").exists()


def test_a_file_that_was_deleted_under_it_is_followed_by_another(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "me", 1000, 3)
    folder.append(LINE)
    for file in tmp_path.iterdir():
        file.unlink()
    folder.append(LINE)
    assert sizes(tmp_path) == [100]


def test_on_a_full_disk_no_half_line_is_left_and_it_goes_on_in_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path, "me", 1000, 3)
    folder.append(LINE)
    room = 150
    write = os.write

    def short(fd: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        fits = data[:room]
        room -= len(fits)
        return write(fd, fits)

    monkeypatch.setattr(os, "write", short)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            folder.append(LINE * 2)
    assert sizes(tmp_path) == [100]
    monkeypatch.undo()
    folder.append(LINE)
    assert sizes(tmp_path) == [200]


def test_what_cannot_be_written_to_is_told_and_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    folder = Folder(tmp_path / "file", "me", 1000, 3)
    with pytest.raises(OSError, match="exists"):
        folder.append(LINE)
    assert (tmp_path / "file").read_text() == "no folder"
