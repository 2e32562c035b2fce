"""Asks an engine for the names of its models."""

import aiohttp
import msgspec

from multipick_epp.checks.mismatch import ServedModels
from multipick_epp.engines.answers import read_at_most
from multipick_epp.types import Endpoint

MAX_ANSWER_BYTES = 1 << 20


class _Card(msgspec.Struct):
    id: str
    parent: str | None = None  # the base model of an adapter
    owned_by: str = ""


class _Cards(msgspec.Struct):
    data: list[_Card]


_cards = msgspec.json.Decoder(_Cards)


async def served(session: aiohttp.ClientSession, endpoint: Endpoint) -> ServedModels | None:
    """`GET /v1/models`; None for an engine that doesn't say (not reached, wants a key, speaks otherwise)."""
    try:
        async with session.get(f"http://{endpoint}/v1/models", allow_redirects=False) as response:
            if response.status != 200:
                return None
            body = await read_at_most(response, MAX_ANSWER_BYTES)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None
    return None if body is None else read(body)


def read(body: bytes) -> ServedModels | None:
    """The names in an answer; None for what is none."""
    try:
        cards = _cards.decode(body).data
    except (msgspec.DecodeError, RecursionError):
        return None
    return ServedModels(
        [card.id for card in cards if card.parent is None], any(card.owned_by == "sglang" for card in cards)
    )
