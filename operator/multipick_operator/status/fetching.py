"""How far an init step is with the weights: its own answer (`weights.py`) in words. No I/O."""

import msgspec

_GB = 1e9


class _Progress(msgspec.Struct):
    state: str
    done: int = 0
    total: int = 0  # 0: not known yet


def progress(body: bytes) -> str:
    """Empty for what is no such answer."""
    try:
        found = msgspec.json.decode(body, type=_Progress)
    except (msgspec.DecodeError, RecursionError):
        return ""
    if found.state == "waiting":
        return "waits for another pod that fetches"
    if found.state != "fetching" or found.total <= 0:
        return "asks what there is"
    share = min(max(found.done, 0) / found.total, 1.0)
    return f"{found.done / _GB:.1f} of {found.total / _GB:.1f} GB ({share:.0%})"
