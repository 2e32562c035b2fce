"""The answer of `/kv_event_sources` (vLLM >= 0.31): where an engine publishes its KV events, by data-parallel rank.

`{"RANK": {"endpoint": "tcp://*:5557", "replay_endpoint": ...}}`, or `{}` where events are off.
"""

from collections.abc import Mapping

import msgspec

from multipick_epp.engines import bounds


class EventSource(msgspec.Struct, frozen=True):
    """One publisher, in the engine's own words: its addresses are yet to be checked."""

    endpoint: str | None = None
    replay_endpoint: str | None = None
    buffer_steps: int = 1  # batches that a replay can bring; 0: none


_answer = msgspec.json.Decoder(dict[str, EventSource])


def parse(body: bytes) -> Mapping[int, EventSource] | None:
    """None for what is no such answer."""
    try:
        sources = _answer.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if len(sources) > bounds.RANKS or not all(rank.isascii() and rank.isdigit() and len(rank) < 10 for rank in sources):
        return None
    return {int(rank): source for rank, source in sources.items()}
