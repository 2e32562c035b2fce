"""Prompts that come as token ids, or as a list of prompts."""

from array import array
from collections.abc import Sequence

from multipick_epp.requests.body import Unreadable
from multipick_epp.requests.prompt import Text, TokenIds, TokenSource

Prompts = str | list[int | str | list[int]] | None
"""The four forms of a completion's prompt: a text, token ids, a list of texts, a list of lists of token ids."""


def token_ids(ids: Sequence[int]) -> TokenIds:
    """Raises Unreadable for what is no token id."""
    try:
        return TokenIds(array("I", ids))
    except (OverflowError, TypeError) as error:
        raise Unreadable("not token ids") from error


def sources(prompts: Prompts, add_special_tokens: bool) -> list[TokenSource]:
    """One source a prompt, at least one. Raises Unreadable."""
    if isinstance(prompts, str):
        return [Text(prompts, add_special_tokens)]
    if not prompts:
        raise Unreadable("no prompt")
    kinds = set(map(type, prompts))
    if kinds == {int}:
        return [token_ids(prompts)]  # type: ignore[arg-type]  # checked just above
    if len(kinds) > 1:
        raise Unreadable("unexpected fields")
    return [
        Text(p, add_special_tokens) if isinstance(p, str) else token_ids(p) for p in prompts if not isinstance(p, int)
    ]
