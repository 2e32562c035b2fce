"""Whether the tokenizer here makes the ids that an engine makes: by probes, once an engine is there to ask.

What can differ: other files than the engine's (or none, such as a missing chat template), options of its command line,
a version of `transformers` that loads the tokenizer in another way. Each of these makes predictions of cache hits
wrong, and none shows by itself.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from multipick_epp.requests.prompt import Chat, Text, TokenSource
from multipick_epp.tokens.outcome import Untokenised
from multipick_epp.tokens.parts import Part, touches, with_all_of_it
from multipick_epp.tokens.remote import UNANSWERED

_TEXT = (
    "In 2024, 1,234.5 people's    words:\n\n\tdef f(x):\r\n    return x + 10_000  # naïve café 東京 한국어 \u0301e"
    " <|im_end|> don't I'LL [INST] \u00a0\u200b \ufb01 \u2026 \u2014 \u201cquoted\u201d \U0001f469\u200d\U0001f467"
)
_SPECIAL = "a </s>  b <s> <|endoftext|> c <start_of_image>  <|eot_id|><end_of_turn>\n<|end|> d"
_TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "d",
        "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
    },
}
_CALL = {"id": "call_000", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


class Probe(NamedTuple):
    """A prompt that shows one difference; `part` is what differs where its ids do."""

    name: str
    part: Part
    source: TokenSource


PROBES = (
    Probe("a text without special tokens", Part.TEXT, Text(_TEXT, add_special_tokens=False)),
    Probe("a text with leading spaces", Part.TEXT, Text("  leading", add_special_tokens=False)),
    Probe("a text of spaces", Part.TEXT, Text("   ", add_special_tokens=False)),
    Probe("a text with special tokens in it", Part.TEXT, Text(_SPECIAL, add_special_tokens=False)),
    Probe("a text", Part.AROUND, Text(_TEXT)),
    Probe("a chat", Part.CHAT, Chat([{"role": "user", "content": _TEXT}])),
    Probe(
        "a chat with an answer",
        Part.CHAT,
        Chat(
            [
                {"role": "user", "content": "1 + 1"},
                {"role": "assistant", "content": "2"},
                {"role": "user", "content": [{"type": "text", "text": "and"}, {"type": "text", "text": "2 + 2"}]},
            ]
        ),
    ),
    Probe(
        "a chat with a system message",
        Part.CHAT,
        Chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "  hi  "}]),
    ),
    Probe(
        "a chat with reasoning",
        Part.REASONING,
        Chat(
            [
                {"role": "user", "content": "1 + 1"},
                {"role": "assistant", "content": "2", "reasoning": "It is 2."},
                {"role": "user", "content": "sure?"},
            ]
        ),
    ),
    Probe("a chat with tools", Part.TOOLS, Chat([{"role": "user", "content": "hi"}], tools=[_TOOL])),
    Probe(
        "a chat with a tool's result",
        Part.TOOLS,
        Chat(
            [
                {"role": "user", "content": "call f"},
                {"role": "assistant", "content": "", "tool_calls": [_CALL]},
                {"role": "tool", "content": "7", "tool_call_id": "call_000"},
            ],
            tools=[_TOOL],
        ),
    ),
    Probe(
        "a chat whose tools must not be called",
        Part.TOOLS,
        Chat([{"role": "user", "content": "hi"}], tools=[_TOOL], tool_choice_none=True),
    ),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the probes showed. `alike` is None where that is nothing: the engine was away, or refuses them all."""

    alike: bool | None
    words: str
    differing: frozenset[Part] = frozenset()  # what the engine reads in another way, or we not at all


class Encoder(Protocol):
    """Makes ids of prompts."""

    async def encode(self, source: TokenSource) -> Sequence[int] | Untokenised:
        """The ids, or why there are none."""


async def compare(local: Encoder, engine: Encoder, by_engine: Collection[Part] = ()) -> Verdict:
    """Ask for each probe's ids.

    Probes that the engine refuses are passed over: not every model takes all of them. One that only the engine can
    tokenise is a difference, but for the parts that are left to engines anyway. One that the engine doesn't answer
    leaves all open: it may be the one that differs.
    """
    compared = differ = 0
    found: dict[Part, str] = {}  # the first difference of each part
    differing: frozenset[Part] = frozenset()
    for probe in PROBES:
        if touches(probe.source, by_engine):
            continue
        theirs = await engine.encode(probe.source)
        if isinstance(theirs, Untokenised):
            if theirs.reason in UNANSWERED:
                return Verdict(None, theirs.reason)
            continue
        ours = await local.encode(probe.source)
        compared += 1
        if (words := _difference(ours, theirs)) is not None:
            differ += 1
            found.setdefault(probe.part, f"{probe.name} {words}")
            differing |= with_all_of_it(probe.part)
    if found:
        more = f"; and {differ - len(found)} more of {compared}" if differ > len(found) else ""
        return Verdict(False, "; ".join(found.values()) + more, differing)
    return Verdict(True, f"{compared} probes agree") if compared else Verdict(None, "refused by the engine")


def _difference(ours: Sequence[int] | Untokenised, theirs: Sequence[int]) -> str | None:
    if isinstance(ours, Untokenised):
        return f"has {len(theirs)} tokens in the engine and can't be tokenised here: {ours.reason}"
    if list(ours) == list(theirs):
        return None
    at = next((i for i, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), None)
    where = "in length" if at is None else f"from token {at} on"
    return f"has {len(ours)} tokens here and {len(theirs)} in the engine; they differ {where}"
