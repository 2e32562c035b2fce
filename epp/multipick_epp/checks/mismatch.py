"""The rules: what an engine said, against what the pool expects of it -> what is wrong, in words. Pure."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from multipick_epp.engines.models import ServedModels
from multipick_epp.events.feed_stats import FeedStats
from multipick_epp.types import Endpoint

USUAL_BLOCK = 64
"""Tokens; the largest usual block, for engines that don't tell theirs."""

_NAMES = 5  # of a list that are told
_NAME_CHARS = 80


class Kind(StrEnum):
    """What doesn't match."""

    MODEL = "model"
    TOKENIZER = "tokenizer"
    BLOCK_SIZE = "block-size"
    EVENTS = "events"
    METRICS = "metrics"
    RANKS = "ranks"
    PREDICTION = "prediction"


class Mismatch(msgspec.Struct, frozen=True):
    """One thing that is wrong with one endpoint, as `GET /status` shows it."""

    kind: Kind
    endpoint: Endpoint
    words: str


def model(wanted: Sequence[str], served: ServedModels) -> str | None:
    """What is wrong with the names, where the pool's requests have `wanted`."""
    missing = [name for name in wanted if name not in served.names]
    if not missing or (served.takes_any and len(missing) < len(wanted)):
        return None
    return f"it serves {_listed(served.names)}, and not {_listed(missing)}, which requests of this pool ask for"


def block_size(wanted: int | None, found: int | None) -> str | None:
    """What is wrong with the engine's block size, in tokens; None for one that isn't told is never wrong."""
    if wanted is None or found is None or wanted == found:
        return None
    return f"it caches blocks of {found} tokens, where the pool names {wanted}"


def events(feed: FeedStats | None, known: bool, longest_prompt: int, size: int | None) -> str | None:
    """Why no events come, where they should.

    `feed` is None where another picker follows the endpoint. `known`: events have told of blocks of it. A prompt of
    two blocks (of `size` tokens), once it is computed, fills one for certain: who says nothing then never will.
    """
    if feed is None:
        return None
    if feed.why:
        return f"no KV events can be had: {feed.why}"
    if not feed.connected:
        return "no KV events can be had: nothing answers at its publisher's port"
    if feed.limit:
        return f"its KV events are followed in part: {feed.limit}"
    if feed.batches or known or longest_prompt < 2 * (size or USUAL_BLOCK):
        return None
    return "no KV event ever came, though it was sent prompts: are its events and its prefix caching on?"


def metrics(ignored: Sequence[str]) -> str | None:
    """What of the engine's metrics has a value that can't be."""
    return f"its metrics can't be true, and count as not said: {_listed(ignored)}" if ignored else None


def _listed(names: Sequence[str]) -> str:
    """The first few names, cut: they are the engine's words, of any length."""
    if not names:
        return "no model"
    told = ", ".join(name[:_NAME_CHARS] for name in names[:_NAMES])
    return f"{told}, ..." if len(names) > _NAMES else told
