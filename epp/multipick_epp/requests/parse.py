"""Finds the parser of a request's API, and keeps everything that can go wrong in it from the caller."""

from collections.abc import Callable, Mapping

import msgspec

from multipick_epp.requests import anthropic, chat, completions, embeddings, generate, responses
from multipick_epp.requests.base64_data import without_media
from multipick_epp.requests.body import MAX_BYTES, MAX_VALUES, Unreadable
from multipick_epp.requests.chat_fields import check_arguments
from multipick_epp.requests.encoding import as_utf8, has_no_numbers, without_no_numbers
from multipick_epp.requests.errors import api_of
from multipick_epp.requests.prompt import Api, Chat, Prompt, Unread
from multipick_epp.requests.uncut import check_uncut

_PARSERS: Mapping[Api, Callable[[bytes], Prompt]] = {
    Api.CHAT: chat.parse,
    Api.COMPLETIONS: completions.parse,
    Api.RESPONSES: responses.parse,
    Api.EMBEDDINGS: embeddings.parse,
    Api.MESSAGES: anthropic.parse,
    Api.GENERATE: generate.parse_vllm,
    Api.SGLANG_GENERATE: generate.parse_sglang,
    Api.POOLING: embeddings.parse,
}

_BY_NAME: Mapping[Api, str] = {
    Api.SCORE: "pairs of texts",
    Api.AUDIO: "audio",
    Api.BATCH: "batch of chats",
}
"""Known APIs whose prompts can't be told from the request: they are charged by its size."""


def parse(path: str, headers: Mapping[str, str], body: bytes) -> Prompt | Unread:
    """The prompt of one request; header names are lower case. Raises nothing, whatever the client sent."""
    api = api_of(path)
    parser = _PARSERS.get(api)
    if parser is None:
        return Unread(_BY_NAME.get(api, "unknown path"))
    if len(body) > MAX_BYTES:
        return Unread("too large")
    try:
        whole = as_utf8(body)
        kept = without_media(whole)
        prompt = _parse(parser, kept)
        if isinstance(prompt.source, Chat):
            _check(prompt.source, is_cut=kept is not whole)
    except Unreadable as unreadable:
        return Unread(unreadable.reason, unreadable.prompt_tokens)
    except msgspec.ValidationError:
        return Unread("unexpected fields")
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Engines don't look at this header: what is JSON for all that, they read, and nothing else.
        return Unread("compressed body" if "content-encoding" in headers else "not JSON")
    except RecursionError:
        return Unread("nested too deeply")
    return prompt


def _parse(parser: Callable[[bytes], Prompt], body: bytes) -> Prompt:
    """As the parser does, which takes no numbers that are none in JSON."""
    try:
        return parser(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        if not has_no_numbers(body):
            raise
        return parser(without_no_numbers(body))


def _check(chat: Chat, *, is_cut: bool) -> None:
    """Raises Unreadable for what is wrong in a chat of any API."""
    if is_cut:
        check_uncut(chat)
    if chat.size > 2 * MAX_VALUES:  # of less, nothing in it can have too many
        check_arguments(chat.messages)
