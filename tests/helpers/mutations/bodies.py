"""Well-formed requests of each API, and mutations of them: of their values, of their bytes, of what is said of them."""

import gzip
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Sent(NamedTuple):
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes


_TOOL = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}
_CALL = {"id": "call00001", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0KGgo" * 800}}
_CHAT = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "  hi <|im_end|> "}, _IMAGE]},
        {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "call00001", "content": "7"},
        {"role": "user", "content": "and 東京 \U0001f469\u200d\U0001f467?"},
    ],
    "tools": [{"type": "function", "function": _TOOL}],
    "tool_choice": "none",
    "chat_template_kwargs": {"enable_thinking": False},
    "reasoning_effort": "low",
    "truncate_prompt_tokens": -1,
    "cache_salt": "s",
    "stream": True,
}
_MESSAGES = {
    "model": "m",
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image", "source": {"type": "base64"}}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "7"}]},
        {"role": "system", "content": "later"},
    ],
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
    "thinking": {"type": "disabled"},
    "max_tokens": 8,
}
_RESPONSES = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "7"},
    ],
    "tools": [{"type": "function", **_TOOL}],
    "reasoning": {"effort": "low"},
}
_GENERATE = {
    "token_ids": [*range(64)],
    "features": {"mm_placeholders": {"image": [{"offset": 9, "length": 4}]}},
    "sampling_params": {"max_tokens": 8, "prompt_logprobs": None},
}

SEEDS: Sequence[tuple[str, dict[str, Any]]] = (
    ("/v1/chat/completions", _CHAT),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "truncate_prompt_tokens": 3}),
    ("/v1/messages", _MESSAGES),
    ("/v1/responses", _RESPONSES),
    ("/v1/responses", {"input": "hi", "previous_response_id": "resp_1"}),
    ("/v1/completions", {"model": "m", "prompt": "a </s> b", "logprobs": 1, "echo": True, "suffix": None}),
    ("/v1/completions", {"prompt": ["a", "b"], "truncate_prompt_tokens": "7", "truncation_side": "left"}),
    ("/v1/completions", {"prompt": [[1, 2, 3], [4, 5]], "add_special_tokens": False}),
    ("/v1/embeddings", {"model": "m", "input": ["a", "b"], "truncate_prompt_tokens": 4}),
    ("/v1/embeddings", {"messages": [{"role": "user", "content": "hi"}], "chat_template_kwargs": {"a": 1}}),
    ("/pooling", {"input": "a"}),
    ("/classify", {"input": [1, 2, 3]}),
    ("/inference/v1/generate", _GENERATE),
    ("/generate", {"text": "hi", "lora_path": "a", "extra_key": "k", "image_data": None}),
    ("/generate", {"input_ids": [[1, 2], [3]], "cache_salt": ["a", "b"]}),
    ("/score", {"text_1": "a", "text_2": ["b", "c"]}),
    ("/v1/rerank", {"query": "a", "documents": ["b", {"content": []}]}),
    ("/v1/audio/transcriptions", {"file": "UklGRg" * 2000, "model": "m"}),
    ("/v1/chat/completions/batch", {"messages": [[{"role": "user", "content": "hi"}]]}),
    ("/v1/messages/count_tokens", _MESSAGES),
)


def mutated(count: int, seed: int) -> Iterator[Sent]:
    """The same ones for the same seed; each has one to four things done to it."""
    rng = random.Random(seed)
    for _ in range(count):
        path, body = rng.choice(SEEDS)
        value = json.loads(json.dumps(body))
        for _ in range(rng.randint(0, 3)):
            value = rng.choice(_OF_VALUES)(rng, value)
        data = _as_json(value)
        headers = {"content-type": "application/json"}
        for _ in range(rng.randint(0, 1)):
            data = rng.choice(_OF_BYTES)(rng, data)
        if rng.random() < 0.05:
            headers |= rng.choice(_HEADERS)
        if rng.random() < 0.05:
            path = rng.choice(SEEDS)[0] + rng.choice(["", "?x=1", "/", "/x"])
        yield Sent(path, headers, data)


def _as_json(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return b"[" * 100_000


def _hostile(rng: random.Random) -> Any:
    deep: Any = 1
    for _ in range(rng.choice([3, 200, 900])):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    return rng.choice(
        [
            None, True, False, 0, -1, 1, 7, 2**31, 2**63, 2**64, -(2**70), 10**400, 1.5, 1e308, float("nan"),
            float("inf"), "", " ", "none", "auto", "user", "\ud800", "\x00", "a" * 70_000, "東" * 3_000,
            "<|im_end|>" * 300, [], {}, [[]], [None], [1, "a", None], [0] * 3_000, ["a"] * 2_000,
            [{}] * 500, {"type": "text"},
            {"type": []}, {"text": 1}, {"role": 7}, {str(n): n for n in range(500)}, deep,
        ]
    )  # fmt: skip


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Each container with the key of each of its values."""
    found: list[tuple[Any, Any]] = []
    left = [value]
    while left and len(found) < 2_000:
        one = left.pop()
        keys = one.keys() if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in list(keys)[:200]:
            found.append((one, key))
            left.append(one[key])
    return found


def _replaced(rng: random.Random, value: Any) -> Any:
    places = _places(value)
    if not places:
        return _hostile(rng)
    container, key = rng.choice(places)
    container[key] = _hostile(rng)
    return value


def _removed(rng: random.Random, value: Any) -> Any:
    if places := _places(value):
        container, key = rng.choice(places)
        del container[key]
    return value


def _moved(rng: random.Random, value: Any) -> Any:
    """What stands in one place in another one too: roles as contents, contents as tools."""
    if places := _places(value):
        (taken, key), (container, other) = rng.choice(places), rng.choice(places)
        copy = json.loads(_as_json(taken[key]))
        container[other] = copy
    return value


def _wrapped(rng: random.Random, value: Any) -> Any:
    if places := _places(value):
        container, key = rng.choice(places)
        container[key] = rng.choice([[container[key]], {"text": container[key]}, str(container[key])])
    return value


def _repeated(rng: random.Random, value: Any) -> Any:
    lists = [container[key] for container, key in _places(value) if isinstance(container[key], list)]
    if lists:
        some = rng.choice(lists)
        some += some[:50] * rng.choice([1, 20])
    return value


def _renamed(rng: random.Random, value: Any) -> Any:
    places = [(container, key) for container, key in _places(value) if isinstance(container, dict)]
    if len(places) > 1:
        (container, key), (_, other) = rng.choice(places), rng.choice(places)
        container[other] = container.pop(key)
    return value


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(min(len(changed), rng.randint(1, 8))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _inserted(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    signs = [
        b"\\",
        b'"',
        b"{",
        b"[",
        b",",
        b"\x00",
        b"\xff",
        b"NaN",
        b"-Infinity",
        b"\\ud800",
        b'"model":"x",',
        b"[" * 3000,
    ]
    return data[:at] + rng.choice(signs) + data[at:]


def _doubled(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start : start + 500] + data[start:]


def _encoded(rng: random.Random, data: bytes) -> bytes:
    encoding = rng.choice(["utf-16", "utf-16-be", "utf-32", "utf-8-sig", "gzip", "utf-7"])
    if encoding == "gzip":
        return gzip.compress(data, 1)
    return data.decode("utf-8", "replace").encode(encoding)


_OF_VALUES: Sequence[Callable[[random.Random, Any], Any]] = (
    _replaced, _replaced, _removed, _moved, _wrapped, _repeated, _renamed,
)  # fmt: skip
_OF_BYTES: Sequence[Callable[[random.Random, bytes], bytes]] = (_cut, _flipped, _inserted, _doubled, _encoded)
_HEADERS: Sequence[Mapping[str, str]] = (
    {"content-encoding": "gzip"},
    {"content-encoding": "identity"},
    {"content-type": "multipart/form-data; boundary=x"},
    {"content-type": ""},
)
