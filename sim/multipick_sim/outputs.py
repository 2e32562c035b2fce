"""Where a command writes at its end: looked at before the work, since minutes of it should not be lost."""

import argparse
import os
from pathlib import Path


def writable(text: str) -> Path:
    """A path at which a file can be written, for argparse."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"no file can be written at {text}")
    return path


def empty_folder(text: str) -> Path:
    """A folder without anything in it, made where there was none, for argparse."""
    path = Path(text).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise argparse.ArgumentTypeError(f"{text} is no empty folder")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} can't be a folder: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise argparse.ArgumentTypeError(f"nothing can be written in {text}")
    return path
