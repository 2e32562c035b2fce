"""Answers that the picker gives itself, in the shape of the API that the client called."""

import math
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from multipick_epp.requests.prompt import Api

_SUFFIXES = {
    "/v1/chat/completions": Api.CHAT,
    "/v1/completions": Api.COMPLETIONS,
    "/v1/responses": Api.RESPONSES,
    "/v1/embeddings": Api.EMBEDDINGS,
    "/v1/messages": Api.MESSAGES,
    "/inference/v1/generate": Api.GENERATE,
    "/v1/chat/completions/batch": Api.BATCH,
    "/v1/audio/transcriptions": Api.AUDIO,
    "/v1/audio/translations": Api.AUDIO,
    "/v1/audio/speech": Api.AUDIO,
    "/v1/rerank": Api.SCORE,
    "/v2/rerank": Api.SCORE,
    "/v1/score": Api.SCORE,
}

_EXACT = {
    "/generate": Api.SGLANG_GENERATE,
    "/pooling": Api.POOLING,
    "/classify": Api.POOLING,
    "/score": Api.SCORE,
    "/rerank": Api.SCORE,
}
"""Engines' own paths without a version: behind a prefix they could be anybody's."""

# Types of https://platform.openai.com/docs/guides/error-codes and https://docs.anthropic.com/en/api/errors.
_OPENAI = {
    400: "invalid_request_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}
_ANTHROPIC = {
    400: "invalid_request_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


@lru_cache(maxsize=64)  # the same few paths all day; a client's own queries only push each other out
def api_of(path: str) -> Api:
    """The API of a request's path. Its query is ignored, and so is what a gateway put before `/v1`."""
    route = path.partition("?")[0].rstrip("/")
    if route in _EXACT:
        return _EXACT[route]
    for suffix, api in _SUFFIXES.items():
        if route.endswith(suffix):
            return api
    return Api.OTHER


def error_body(api: Api, status: int, message: str) -> bytes:
    """The JSON body of an error, as the client's library expects it."""
    if api is Api.MESSAGES:
        kind = _ANTHROPIC.get(status, "api_error")
        return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})
    kind = _OPENAI.get(status, "server_error")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": status}})


def retry_after(seconds: float) -> Mapping[str, str]:
    """The header that tells a client when to come back: whole seconds, at least one (RFC 9110, section 10.2.3)."""
    return {"retry-after": str(max(1, math.ceil(seconds)))}
