"""Files that a command writes at its end: looked at before the work, since minutes of it should not be lost."""

import argparse
import os
from pathlib import Path


def writable(text: str) -> Path:
    """A path at which a file can be written, for argparse."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"no file can be written at {text}")
    return path
