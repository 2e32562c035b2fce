"""The JSON of answers, field for field as vLLM 0.32 writes it: whole, or as server-sent events.

Only the text differs from one chunk of a stream to the next, so a chunk is three byte strings put together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from multipick_sim.pod.settings import ENGINE_VERSION

DONE = b"data: [DONE]\n\n"
FINGERPRINT = f"vllm-{ENGINE_VERSION}-simulated"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request; `cached` is None where the pod doesn't tell."""

    prompt: int
    completion: int
    cached: int | None
    created: int = 0  # prompt tokens in blocks that this request was the first to cache

    def counts(self) -> dict[str, Any]:
        """The figures that every API has."""
        return {
            "prompt_tokens": self.prompt,
            "total_tokens": self.prompt + self.completion,
            "completion_tokens": self.completion,
        }


class Shape(Protocol):
    """How one API writes one answer."""

    def opening(self) -> bytes:
        """What goes out before the first token's text."""

    def chunk(self, json_text: bytes) -> bytes:
        """Some text, as the inside of a JSON string."""

    def last_chunk(self, json_text: bytes, reason: str) -> bytes:
        """The last text and why there is no more."""

    def usage_chunk(self, usage: Usage) -> bytes:
        """What a client gets that asks for `stream_options.include_usage`."""

    def whole(self, text: str, reason: str, usage: Usage) -> bytes:
        """The answer to a request that doesn't stream."""


class ChatShape:
    """`/v1/chat/completions`."""

    def __init__(self, name: str, created: int, model: str) -> None:
        self._facts = {"created": created, "model": model}
        self._name = f"chatcmpl-{name}"
        head = {"id": self._name, "object": "chat.completion.chunk", **self._facts}
        self._head = b"data: " + msgspec.json.encode(head)[:-1]
        self._text_head = self._head + b',"choices":[{"index":0,"delta":{"content":"'

    def opening(self) -> bytes:
        """See `Shape`."""
        return (
            self._head
            + b',"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
            + b',"prompt_token_ids":null,"prompt_text":null}\n\n'
        )

    def chunk(self, json_text: bytes) -> bytes:
        """See `Shape`."""
        return b'%b%b"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n' % (self._text_head, json_text)

    def last_chunk(self, json_text: bytes, reason: str) -> bytes:
        """See `Shape`."""
        return b'%b%b"},"logprobs":null,"finish_reason":"%b","stop_reason":null,"token_ids":null}]}\n\n' % (
            self._text_head,
            json_text,
            reason.encode(),
        )

    def usage_chunk(self, usage: Usage) -> bytes:
        """See `Shape`."""
        counts = usage.counts()
        if usage.cached is not None:
            counts["prompt_tokens_details"] = {
                "cached_tokens": usage.cached,
                "created_cache_tokens": usage.created,
            }
        return _usage_chunk(self._head, counts)

    def whole(self, text: str, reason: str, usage: Usage) -> bytes:
        """See `Shape`."""
        message = {"role": "assistant", "content": text, "refusal": None, "annotations": None, "audio": None}
        message |= {"function_call": None, "reasoning": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason, "stop_reason": None}
        choice |= {"token_ids": None, "routed_experts": None}
        answer = {"id": self._name, "object": "chat.completion", **self._facts, "choices": [choice]}
        answer |= _whole_usage(usage, usage.created)
        answer |= dict.fromkeys(("prompt_logprobs", "prompt_token_ids", "prompt_text"))
        return msgspec.json.encode(answer | _NO_TRANSFER)


class CompletionShape:
    """`/v1/completions`."""

    def __init__(self, name: str, created: int, model: str) -> None:
        self._facts = {"id": f"cmpl-{name}", "object": "text_completion", "created": created, "model": model}
        self._head = b"data: " + msgspec.json.encode(self._facts)[:-1]
        self._text_head = self._head + b',"choices":[{"index":0,"text":"'

    def opening(self) -> bytes:
        """See `Shape`."""
        return b""

    def chunk(self, json_text: bytes) -> bytes:
        """See `Shape`."""
        return b'%b%b","logprobs":null,"finish_reason":null%b' % (self._text_head, json_text, _COMPLETION_TAIL)

    def last_chunk(self, json_text: bytes, reason: str) -> bytes:
        """See `Shape`."""
        return b'%b%b","logprobs":null,"finish_reason":"%b"%b' % (
            self._text_head,
            json_text,
            reason.encode(),
            _COMPLETION_TAIL,
        )

    def usage_chunk(self, usage: Usage) -> bytes:
        """See `Shape`."""
        counts = usage.counts()
        if usage.cached is not None:
            counts["prompt_tokens_details"] = {"cached_tokens": usage.cached}
        return _usage_chunk(self._head, counts)

    def whole(self, text: str, reason: str, usage: Usage) -> bytes:
        """See `Shape`."""
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason, "stop_reason": None}
        choice |= dict.fromkeys(("token_ids", "prompt_logprobs", "prompt_token_ids", "routed_experts"))
        return msgspec.json.encode(
            self._facts | {"choices": [choice]} | _whole_usage(usage, created=None) | _NO_TRANSFER
        )


def error_body(status: int, kind: str, message: str, parameter: str | None = None) -> bytes:
    """An error as vLLM words it."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": parameter, "code": status}})


_COMPLETION_TAIL = b',"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}\n\n'
_NO_TRANSFER: dict[str, Any] = dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "metrics"))


def _usage_chunk(head: bytes, counts: Mapping[str, Any]) -> bytes:
    tail = msgspec.json.encode({"choices": [], "usage": counts, "system_fingerprint": FINGERPRINT})
    return b"%b,%b\n\n" % (head, tail[1:])


def _whole_usage(usage: Usage, created: int | None) -> dict[str, Any]:
    details = None
    if usage.cached is not None:
        details = {"cached_tokens": usage.cached, "created_cache_tokens": created, "multimodal_tokens": None}
    counts = usage.counts() | {"prompt_tokens_details": details, "completion_tokens_details": None}
    return {"service_tier": None, "system_fingerprint": FINGERPRINT, "usage": counts}
