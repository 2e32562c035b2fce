"""The answer of `/v1/models`: what an engine serves, and under which names."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from multipick_epp.engines import bounds


@dataclass(frozen=True, slots=True)
class ServedModels:
    """What an engine calls its models."""

    names: Sequence[str]  # of the base model
    takes_any: bool = False  # it answers whatever name a request has: SGLang (sgl-project/sglang#7035)
    adapters: frozenset[str] = frozenset()  # LoRA adapters that it has loaded
    max_model_len: int | None = None  # tokens of a prompt and its answer together; None where it doesn't say


class _Card(msgspec.Struct):
    id: str
    parent: str | None = None  # the base model of an adapter
    owned_by: str | None = None
    max_model_len: int | None = None


class _Cards(msgspec.Struct):
    data: list[msgspec.Raw]


_UNREADABLE = msgspec.DecodeError, UnicodeDecodeError, RecursionError
_cards = msgspec.json.Decoder(_Cards)
_one_card = msgspec.json.Decoder(_Card)


def parse(body: bytes) -> ServedModels | None:
    """None for what is no such answer. A card that is none costs itself, where others can be read."""
    try:
        found = _cards.decode(body).data
    except _UNREADABLE:
        return None
    cards = [card for each in found[: bounds.MODELS] if (card := _card(each)) is not None]
    if len(found) > bounds.MODELS or (found and not cards):
        return None
    cards = [card for card in cards if len(card.id) <= bounds.NAME_CHARS]
    base = [card for card in cards if card.parent is None]
    lengths = [card.max_model_len for card in base if card.max_model_len is not None]
    return ServedModels(
        [card.id for card in base],
        any(card.owned_by == "sglang" for card in cards),
        frozenset(card.id for card in cards if card.parent is not None),
        next((length for length in lengths if 0 < length <= bounds.MODEL_TOKENS), None),
    )


def _card(data: msgspec.Raw) -> _Card | None:
    try:
        return _one_card.decode(data)
    except _UNREADABLE:
        return None
