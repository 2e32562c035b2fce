"""The requests that picker and engine are compared by: kinds of requests x APIs, and texts made at random.

A case is a path, a body and the kind that the table counts it under.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

RECORDED = Path(__file__).parents[1] / "unit" / "tokens" / "recorded" / "render.json"

CHAT, MESSAGES, RESPONSES, COMPLETIONS = "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"


class Case(NamedTuple):
    """One request."""

    kind: str
    path: str
    body: dict[str, Any]


TEXTS = (
    "Hi",
    "  leading",
    "trailing  ",
    "   ",
    "\n\n\tdef f(x):\r\n    return x + 10_000  # two\n",
    "Grüße, naïve café — 東京タワー、한국어 텍스트 \u0301e \U0001f469\u200d\U0001f467",
    "a </s>  b <s> <|endoftext|> c <start_of_image>  <|eot_id|><end_of_turn>\n<|end|> d <|im_end|>",
    "<image_soft_token> x <|python_tag|>y [INST] z [/INST]  <｜User｜>w",
    '{"a": [1, {"b": null}], "c": "d\\n"}',
    "1,234.5 don't WE'LL \u00a0\u200b\ufeff \ufb01 \u2026 \u201cquoted\u201d",
    "x" * 300,
    "The quick brown fox jumps over the lazy dog. " * 60,
)
_TOOL = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Its name"},
            "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
            "days": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["city"],
    },
}
_BARE = {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}
_OPENAI_TOOLS = [{"type": "function", "function": tool} for tool in (_TOOL, _BARE)]
_ANTHROPIC_TOOLS = [
    {"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]}
    for tool in (_TOOL, _BARE)
]
_RESPONSE_TOOLS = [{"type": "function", "strict": None, **tool} for tool in (_TOOL, _BARE)]


def cases() -> Iterator[Case]:
    """All but the random texts."""
    for text in TEXTS:
        yield Case("completion", COMPLETIONS, {"prompt": text})
        yield Case("completion", COMPLETIONS, {"prompt": text, "add_special_tokens": False})
        yield Case("chat", CHAT, {"messages": [{"role": "user", "content": text}]})
        yield Case("messages", MESSAGES, {"messages": [{"role": "user", "content": text}]})
        yield Case("responses", RESPONSES, {"input": text})
        system = {"role": "system", "content": text}
        yield Case("chat: system", CHAT, {"messages": [system, {"role": "user", "content": text}]})
        yield Case("messages: system", MESSAGES, {"system": text, "messages": [{"role": "user", "content": "go on"}]})
        yield Case("responses: instructions", RESPONSES, {"instructions": text, "input": "go on"})
        yield from _histories(text)
    yield from _recorded()


def _histories(text: str) -> Iterator[Case]:
    turns = [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": text}]
    again = {"role": "user", "content": "sure?"}
    yield Case("chat: history", CHAT, {"messages": [*turns, again]})
    yield Case("messages: history", MESSAGES, {"messages": [*turns, again]})
    yield Case("responses: history", RESPONSES, {"input": [*turns, again]})
    thought = [turns[0], {"role": "assistant", "content": "2", "reasoning": text}]
    yield Case("chat: reasoning", CHAT, {"messages": [*thought, again]})
    call: dict[str, Any] = {"id": "callabc12", "type": "function"}
    call |= {"function": {"name": "get_weather", "arguments": json.dumps({"city": text})}}
    called = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "callabc12", "content": text},
    ]
    yield Case("chat: tools", CHAT, {"messages": called[:1], "tools": _OPENAI_TOOLS})
    yield Case("chat: tool results", CHAT, {"messages": called, "tools": _OPENAI_TOOLS})
    none = {"messages": [{"role": "user", "content": text}], "tools": _OPENAI_TOOLS, "tool_choice": "none"}
    yield Case("chat: tool choice none", CHAT, none)
    blocks: list[dict[str, Any]] = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": [
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "toolu_012", "name": "get_weather", "input": {"city": text}},
        ]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_012", "content": text}]},
    ]  # fmt: skip
    yield Case("messages: tools", MESSAGES, {"messages": blocks[:1], "tools": _ANTHROPIC_TOOLS})
    yield Case("messages: tool results", MESSAGES, {"messages": blocks, "tools": _ANTHROPIC_TOOLS})
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": text}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": json.dumps({"city": text})},
        {"type": "function_call_output", "call_id": "c1", "output": text},
    ]
    yield Case("responses: tools", RESPONSES, {"input": items[:1], "tools": _RESPONSE_TOOLS})
    yield Case("responses: tool results", RESPONSES, {"input": items, "tools": _RESPONSE_TOOLS})
    for effort in ("low", "high"):
        effort_chat = {"messages": [{"role": "user", "content": text}], "reasoning_effort": effort}
        yield Case("chat: effort", CHAT, effort_chat)
    parts = [{"type": "text", "text": "first"}, {"type": "text", "text": text}]
    yield Case("chat: parts", CHAT, {"messages": [{"role": "user", "content": parts}]})
    unfinished = {"messages": turns, "add_generation_prompt": False, "continue_final_message": True}
    yield Case("chat: continue", CHAT, unfinished)
    developer = {"role": "developer", "content": text}
    yield Case("chat: developer", CHAT, {"messages": [developer, {"role": "user", "content": "hi"}]})


def _recorded() -> Iterator[Case]:
    """The odd ones, of which many are refused."""
    for case in json.loads(RECORDED.read_text()):
        kind = {CHAT: "chat", MESSAGES: "messages", RESPONSES: "responses", COMPLETIONS: "completion"}[case["path"]]
        yield Case(f"{kind}: odd", case["path"], case["body"])


def truncated() -> Iterator[Case]:
    """Requests that want their prompts cut."""
    for text in (TEXTS[0], TEXTS[1], TEXTS[4], TEXTS[6], TEXTS[11]):
        for tokens in (1, 2, 3, 7, 20, 100_000):
            for side in ({}, {"truncation_side": "left"}, {"truncation_side": "right"}):
                wish = {"truncate_prompt_tokens": tokens, **side}
                yield Case("completion: cut", COMPLETIONS, {"prompt": text, **wish})
                yield Case("chat: cut", CHAT, {"messages": [{"role": "user", "content": text}], **wish})
    for side in ({}, {"truncation_side": "left"}, {"truncation_side": "right"}):
        wish = {"truncate_prompt_tokens": 3, **side}
        yield Case("completion: cut", COMPLETIONS, {"prompt": [11, 12, 13, 14, 15], **wish})
        yield Case("completion: cut", COMPLETIONS, {"prompt": ["a b c d e f", "g h i j k"], **wish})
        yield Case("completion: cut", COMPLETIONS, {"prompt": "a b c d e f", "add_special_tokens": False, **wish})
        special = {"messages": [{"role": "user", "content": "a b"}], "add_special_tokens": True}
        yield Case("chat: cut", CHAT, special | wish)


def fuzz(count: int, seed: int) -> list[str]:
    """Random texts of what tokenizers differ in: scripts, spaces, digits, special tokens, broken sequences."""
    rng = random.Random(seed)
    alphabets = (
        "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJ", "0123456789", "    \t\n\r\u00a0\u2003",
        ".,;:!?'\"()[]{}<>|/\\`~@#$%^&*_-+=",
        "äöüßéèñçøå", "абвгдежз", "αβγδε", "אבגד", "ابتثج", "中文汉字测试东京",
        "ひらがなカタカナ", "한국어텍스트", "हिन्दी",
        "\u0301\u0308\u200b\u200d\ufeff\ufe0f", "😀👩👧🇩🇪", "\U0001d518ﬁﷺⅧ½", "\x00\x01\x7f",
    )  # fmt: skip
    words = [
        "don't", "I'LL", "https://a.b/c?d=e", "</s>", "<s>", "<|im_end|>", "<|endoftext|>", "<unk>", "<bos>", "<eos>",
        "<|eot_id|>", "<end_of_turn>", "[INST]", "<|end|>", "<|start|>", "<pad>", "<image_soft_token>", "def ", "    ",
        "\n\n", "▁", "Ġ", "1234567", "<0x0A>", "<unused0>", "<|reserved_special_token_1|>", "<think>", "</think>",
    ]  # fmt: skip
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 12)):
            if rng.random() < 0.3:
                parts.append(rng.choice(words))
            else:
                alphabet = rng.choice(alphabets)
                parts.append("".join(rng.choice(alphabet) for _ in range(rng.randint(1, 9))))
            if rng.random() < 0.5:
                parts.append(" ")
        texts.append("".join(parts))
    return texts
