"""The kinds of prompts that an engine may read in another way than we do, each by itself.

Another vocabulary changes all of them, another chat template only chats, an option for tools only chats with tools. So
what is found wrong is named, and only that is asked of engines.
"""

from collections.abc import Collection
from enum import StrEnum

from multipick_epp.requests.prompt import Text, TokenIds, TokenSource


class Part(StrEnum):
    """A kind of prompt; the names are for people."""

    TEXT = "texts"
    AROUND = "special tokens around texts"
    CHAT = "chats"
    TOOLS = "chats with tools"
    REASONING = "chats with reasoning"
    TEMPLATE = "chats with a template of their own"


ALL = frozenset(Part)
CHATS = frozenset({Part.CHAT, Part.TOOLS, Part.REASONING, Part.TEMPLATE})


def with_all_of_it(part: Part) -> frozenset[Part]:
    """The parts that are other than here where this one is: every prompt ends as a text."""
    match part:
        case Part.TEXT:
            return ALL
        case Part.CHAT:
            return CHATS
        case _:
            return frozenset({part})


def touches(source: TokenSource, parts: Collection[Part]) -> bool:
    """Whether the prompt is of one of these parts. Quick where there are none."""
    if not parts or isinstance(source, TokenIds):
        return False
    if isinstance(source, Text):
        return Part.TEXT in parts or (source.add_special_tokens and Part.AROUND in parts)
    if Part.TEMPLATE in parts and source.chat_template is not None:
        return True
    if Part.CHAT in parts or (source.add_special_tokens and Part.AROUND in parts):
        return True
    if Part.TOOLS in parts and (
        source.tools or any(m.get("tool_calls") or m["role"] == "tool" for m in source.messages)
    ):
        return True
    return Part.REASONING in parts and any(m.get("reasoning") for m in source.messages)
