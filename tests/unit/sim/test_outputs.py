"""Where the files of a command's end may be."""

import argparse
import os
from pathlib import Path

import pytest
from multipick_sim.outputs import empty_folder, writable


def test_a_new_file_and_one_that_is_there_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    assert [writable(str(tmp_path / name)) for name in ("new", "old")] == [tmp_path / "new", tmp_path / "old"]


@pytest.mark.parametrize("name", [".", "missing/file", "old/file"])
def test_a_folder_and_what_has_none_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    with pytest.raises(argparse.ArgumentTypeError, match="no file can be written"):
        writable(str(tmp_path / name))


@pytest.mark.parametrize("kept", ["new", "old"])
def test_what_may_not_be_written_is_refused_before_the_work(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").touch()
    barred = tmp_path if kept == "new" else tmp_path / "old"
    # Permissions don't hold root, who may run the tests.
    monkeypatch.setattr(os, "access", lambda path, mode: path != barred or mode != os.W_OK)
    with pytest.raises(argparse.ArgumentTypeError, match="no file can be written"):
        writable(str(tmp_path / kept))


def test_a_folder_is_made_and_may_be_there_already(tmp_path: Path) -> None:
    for _ in range(2):
        assert empty_folder(str(tmp_path / "new" / "one")) == tmp_path / "new" / "one"
    assert (tmp_path / "new" / "one").is_dir()


@pytest.mark.parametrize("name", ["full", "full/file", "full/file/below", "barred", "n" * 300])
def test_a_folder_that_no_picker_could_capture_into_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "barred")
    with pytest.raises(argparse.ArgumentTypeError):
        empty_folder(str(tmp_path / name))
