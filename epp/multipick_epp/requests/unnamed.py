"""The path of a request whose gateway doesn't tell it (NGINX Gateway Fabric sends no pseudo-headers): what it must be.

A path of an API's own stands for it, so that all else goes as if it had been told.
"""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, UnsetType

_ANTHROPIC = "/v1/messages"


class _Body(msgspec.Struct):
    """The fields that tell APIs apart; their values are left unread, but for the first of an `input`."""

    messages: msgspec.Raw | UnsetType = UNSET
    prompt: msgspec.Raw | UnsetType = UNSET
    input: msgspec.Raw | UnsetType = UNSET
    encoding_format: msgspec.Raw | UnsetType = UNSET
    dimensions: msgspec.Raw | UnsetType = UNSET
    token_ids: msgspec.Raw | UnsetType = UNSET
    input_ids: msgspec.Raw | UnsetType = UNSET
    text: msgspec.Raw | UnsetType = UNSET
    sampling_params: msgspec.Raw | UnsetType = UNSET


_body = msgspec.json.Decoder(_Body)


def path_by_headers(headers: Mapping[str, str]) -> str:
    """ "" where they don't tell. Anthropic's API wants `anthropic-version` on every request."""
    return _ANTHROPIC if "anthropic-version" in headers else ""


def path_by_body(body: bytes) -> str:
    """ "" for what is no request of an API that we know. Takes as long as reading the JSON."""
    try:
        sent = _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    found = {
        "/v1/chat/completions": sent.messages is not UNSET,
        "/v1/completions": sent.prompt is not UNSET,
        "/v1/embeddings": sent.input is not UNSET and _is_embedded(sent),
        "/v1/responses": sent.input is not UNSET,
        "/inference/v1/generate": sent.token_ids is not UNSET,
        "/generate": sent.input_ids is not UNSET or (sent.text is not UNSET and sent.sampling_params is not UNSET),
    }
    return next((path for path, it_is in found.items() if it_is), "")


def _is_embedded(sent: _Body) -> bool:
    """Of a body with an `input`: texts and token ids are embedded, a list of items is a conversation, and a single text
    is embedded where it says how.
    """
    if sent.encoding_format is not UNSET or sent.dimensions is not UNSET:
        return True
    data = bytes(sent.input) if isinstance(sent.input, msgspec.Raw) else b""
    return data.startswith(b"[") and not data[1:].lstrip().startswith((b"{", b"]"))
