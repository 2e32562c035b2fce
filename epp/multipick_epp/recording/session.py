"""The requests that a recording sends where the user names none: each rule of the prefix cache once or twice."""

from collections.abc import Iterator
from random import Random
from typing import Any

_CHARTER = (
    "You are the archivist of a small harbour town. Answer from the ledgers alone: name the ship, the cargo, the day "
    "of arrival and the berth. Where two ledgers disagree, say so and quote both. Never guess a number. "
)


def session(model: str) -> Iterator[dict[str, Any]]:
    """Steps in the form of `steps.jsonl`: name, method, path, request."""
    yield _step("version", "GET", "/version")
    yield _step("event sources", "GET", "/kv_event_sources")
    yield _step("models", "GET", "/v1/models")
    rng = Random(7)
    ids = [rng.randrange(100, 1000) for _ in range(2000)]
    yield _completion("cold", model, ids[:700])
    yield _completion("repeat", model, ids[:700])
    yield _completion("longer", model, ids[:1100])
    yield _completion("other end", model, [*ids[:400], *ids[1200:1500]])
    yield _completion("whole blocks", model, ids[1000:1256])
    yield _completion("whole blocks again: the last is computed anew", model, ids[1000:1256])
    yield _completion("salted", model, ids[:700], cache_salt="tenant-a")
    yield _completion("salted again", model, ids[:700], cache_salt="tenant-a")
    yield _completion("streamed, 150 tokens", model, ids[1300:1700], max_tokens=150, stream=True)
    question = {"role": "user", "content": "Which ships came in with salt in the spring of 1884?"}
    chat = [{"role": "system", "content": _CHARTER * 12}, question]
    yield _step("tokens of the chat", "POST", "/tokenize", {"model": model, "messages": chat})
    yield _chat("chat", model, chat)
    yield _chat("chat again", model, chat)
    answered = [*chat, {"role": "assistant", "content": "None."}, {"role": "user", "content": "And in the autumn?"}]
    yield _chat("next turn", model, answered)


def _step(step: str, method: str, path: str, request: Any = None) -> dict[str, Any]:
    return {"step": step, "method": method, "path": path, "request": request}


def _completion(step: str, model: str, ids: list[int], **more: Any) -> dict[str, Any]:
    body = {"model": model, "prompt": ids, "max_tokens": 2, "temperature": 0, "ignore_eos": True, **more}
    return _step(step, "POST", "/v1/completions", _with_usage(body))


def _chat(step: str, model: str, messages: list[dict[str, str]]) -> dict[str, Any]:
    body = {"model": model, "messages": messages, "max_tokens": 4, "temperature": 0}
    return _step(step, "POST", "/v1/chat/completions", _with_usage(body))


def _with_usage(body: dict[str, Any]) -> dict[str, Any]:
    return body | {"stream_options": {"include_usage": True}} if body.get("stream") else body
