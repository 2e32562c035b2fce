"""Whether the tokenizer here makes the ids that an engine makes: by probes, once an engine is there to ask.

What can differ: other files than the engine's, a template of its command line, a version of `transformers` that loads
the tokenizer in another way. Each of these makes every prediction of cache hits wrong, and none shows by itself.
"""

from dataclasses import dataclass

from multipick_epp.requests.prompt import Chat, Text, TokenSource
from multipick_epp.tokens.outcome import Untokenised
from multipick_epp.tokens.remote import UNANSWERED, RemoteTokenizer
from multipick_epp.tokens.tokenizer import Tokenizer

_TEXT = (
    "In 2024, 1,234.5 people's    words:\n\n\tdef f(x):\r\n    return x + 10_000  # naïve café 東京 한국어 \u0301e"
    " <|im_end|> don't I'LL [INST] \u00a0\u200b \ufb01 \u2026 \u2014 \u201cquoted\u201d \U0001f469\u200d\U0001f467"
)
_TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}},
}

PROBES: dict[str, TokenSource] = {
    "a text": Text(_TEXT),
    "a text without special tokens": Text(_TEXT, add_special_tokens=False),
    "a chat": Chat([{"role": "user", "content": _TEXT}]),
    "a chat with an answer": Chat(
        [
            {"role": "user", "content": "1 + 1"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": [{"type": "text", "text": "and"}, {"type": "text", "text": "2 + 2"}]},
        ]
    ),
    "a chat with tools": Chat([{"role": "user", "content": "hi"}], tools=[_TOOL]),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the probes showed. `alike` is None where that is nothing: the engine was away, or refuses them all."""

    alike: bool | None
    words: str


async def compare(local: Tokenizer, engine: RemoteTokenizer) -> Verdict:
    """Ask for each probe's ids until one differs.

    Probes that one of the two refuses are passed over: not every model takes all of them. One that the engine doesn't
    answer leaves all open: it may be the one that differs.
    """
    compared = 0
    for name, probe in PROBES.items():
        theirs = await engine.encode(probe)
        ours = await local.encode(probe)
        if isinstance(theirs, Untokenised) and theirs.reason in UNANSWERED:
            return Verdict(None, theirs.reason)
        if isinstance(theirs, Untokenised) or isinstance(ours, Untokenised):
            continue
        if list(ours) != list(theirs):
            at = next((i for i, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), None)
            where = f"from token {at} on" if at is not None else "in length"
            return Verdict(
                False, f"{name} has {len(ours)} tokens here and {len(theirs)} in the engine; they differ {where}"
            )
        compared += 1
    return Verdict(True, f"{compared} probes agree") if compared else Verdict(None, "refused by the engine")
