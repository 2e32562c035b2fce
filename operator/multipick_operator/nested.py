"""JSON as deep as the API server lets an object be: one that could not be read would hide all others of its list.

From CPython 3.12 on, the scanner in C stops at a depth that nothing raises (3.12: 1,500 levels, 3.13: 9,990). The API
server takes 9,993 in a pod template; the scanner in Python goes as deep as `sys.setrecursionlimit` says.
"""

import json
import sys
from json import scanner
from typing import Any

FRAMES = 25_000  # two for each of 10,000 levels, and what else calls


def read_any_depth() -> None:
    """Have `json.loads` read what is so deep, in all of this process: kopf and aiohttp let nobody choose a decoder."""
    sys.setrecursionlimit(FRAMES)
    decoder: Any = json._default_decoder  # type: ignore[attr-defined]
    in_c, in_python = decoder.scan_once, scanner.py_make_scanner(decoder)  # type: ignore[attr-defined]

    def scan(text: str, start: int) -> tuple[Any, int]:
        try:
            found: tuple[Any, int] = in_c(text, start)
        except RecursionError:
            found = in_python(text, start)
        return found

    decoder.scan_once = scan
