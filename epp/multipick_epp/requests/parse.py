"""Finds the parser of a request's API, and keeps everything that can go wrong in it from the caller."""

from collections.abc import Callable, Mapping

import msgspec

from multipick_epp.requests import anthropic, chat, completions, embeddings, generate, responses
from multipick_epp.requests.body import Unreadable, check_size
from multipick_epp.requests.errors import api_of
from multipick_epp.requests.prompt import Api, Prompt, Unread

_PARSERS: Mapping[Api, Callable[[bytes], Prompt]] = {
    Api.CHAT: chat.parse,
    Api.COMPLETIONS: completions.parse,
    Api.RESPONSES: responses.parse,
    Api.EMBEDDINGS: embeddings.parse,
    Api.MESSAGES: anthropic.parse,
    Api.GENERATE: generate.parse_vllm,
    Api.SGLANG_GENERATE: generate.parse_sglang,
}


def parse(path: str, headers: Mapping[str, str], body: bytes) -> Prompt | Unread:
    """The prompt of one request; header names are lower case. Raises nothing, whatever the client sent."""
    api = api_of(path)
    parser = _PARSERS.get(api)
    if parser is None:
        return Unread("unknown path")
    if headers.get("content-encoding", "identity") != "identity":
        return Unread("compressed body")
    try:
        check_size(body)
        return parser(body)
    except Unreadable as unreadable:
        return Unread(unreadable.reason)
    except msgspec.ValidationError:
        return Unread("unexpected fields")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Unread("not JSON")
    except RecursionError:
        return Unread("nested too deeply")
