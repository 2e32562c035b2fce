"""How far an init step is with the weights: its own answer (`weights.py`) in words. No I/O."""

from typing import Annotated

import msgspec
from msgspec import Meta

_GB = 1e9
_Bytes = Annotated[int, Meta(ge=0, le=1 << 62)]


class _Progress(msgspec.Struct):
    state: str
    done: _Bytes = 0
    total: _Bytes = 0  # 0: not known yet


def progress(body: bytes) -> str:
    """Empty for what is no such answer."""
    try:
        found = msgspec.json.decode(body, type=_Progress)
    except (msgspec.DecodeError, RecursionError):
        return ""
    if found.state == "waiting":
        return "waits for another pod that fetches"
    if found.state != "fetching" or found.total == 0:
        return "asks what there is"
    share = min(found.done / found.total, 1.0)
    return f"{found.done / _GB:.1f} of {found.total / _GB:.1f} GB ({share:.0%})"
