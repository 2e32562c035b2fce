"""What the chat-like APIs share: tools as the template sees them, content parts, media.

Rules of vLLM 0.32 (`renderers/chat_utils.py`, `entrypoints/generate/base/protocol.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from multipick_epp.requests.body import Scalar, Unreadable, check_values
from multipick_epp.requests.prompt import ChatMessage, Truncation

MEDIA_TOKENS = 1_000
"""A guess for one image, audio or video: an image of one megapixel is 1,337 tokens for Qwen2.5-VL, 576 for LLaVA."""

CHARS_A_TOKEN = 4
"""A guess for English text and code, for the part of a prompt that is not tokenised."""

TEXT_PARTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
    "tool_reference": "name",
}
"""The kinds of content parts that hold text, and the field that it is in."""

MEDIA_PARTS = {
    "image_url": "image",
    "input_image": "image",
    "image_embeds": "image",
    "audio_url": "audio",
    "input_audio": "audio",
    "audio_embeds": "audio",
    "video_url": "video",
    "video_embeds": "video",
}
"""The kinds of content parts that hold media, and their modality."""


class Function(msgspec.Struct):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None

    def for_template(self) -> dict[str, Any]:
        """The tool as the template gets it: fields in this order, the last two only where given."""
        function: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        if self.strict is not None:
            function["strict"] = self.strict
        if self.defer_loading is not None:
            function["defer_loading"] = self.defer_loading
        return {"type": "function", "function": function}


def only_texts(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all messages have a role and a text, and no other field: then there is nothing to look into."""
    contents = [message.get("content") for message in messages]
    return {*map(len, messages)} <= {2} and {*map(type, contents)} <= {str}


def find_media(messages: Sequence[ChatMessage]) -> int | None:
    """A guess at the tokens from the first message with media on; None without media.

    Checks all content parts on the way: raises Unreadable for one that the engine would not take.
    """
    characters = items = 0
    for message in messages:
        content = message.get("content")
        text, media = _measure(content) if isinstance(content, list) else (len(content or ""), 0)
        items += media
        if items:
            characters += text
    return items * MEDIA_TOKENS + characters // CHARS_A_TOKEN if items else None


def _measure(parts: Iterable[str | dict[str, Any]]) -> tuple[int, int]:
    """Characters and media items of one message's parts."""
    characters = media = 0
    for part in parts:
        if isinstance(part, str):
            characters += len(part)
            continue
        modality = media_of(part)
        if modality is not None:
            media += 1
            continue
        kind = part.get("type")
        field = TEXT_PARTS.get(kind) if isinstance(kind, str) else None
        text = part.get(field) if field else None
        if not isinstance(text, str) or part.get("uuid") is not None:
            raise Unreadable("unknown content part")
        characters += len(text)
    return characters, media


def media_of(part: Mapping[str, Any]) -> str | None:
    """The modality of a content part, None for text. A part without a type is media by its fields."""
    kind = part.get("type")
    if isinstance(kind, str) and part.get("uuid") is None:
        return MEDIA_PARTS.get(kind)
    return next((modality for field, modality in MEDIA_PARTS.items() if field in part), None)


def check_arguments(messages: Iterable[ChatMessage]) -> None:
    """Raises Unreadable where the arguments of all calls, which are decoded for the template, hold too many values."""
    calls = (call for message in messages for call in message.get("tool_calls") or ())
    check_inner(call["function"]["arguments"] for call in calls)


def check_inner(texts: Iterable[str]) -> None:
    """Raises Unreadable where texts that are JSON themselves hold too many values, all together."""
    check_values(*[text.encode("utf-8", "surrogatepass") for text in texts])


def truncation_of(truncate_prompt_tokens: Scalar, side: Scalar, *, left: bool = True) -> Truncation | None:
    """How much of the prompt the engine keeps; -1 only cuts what is longer than the model's context. `left`: what it
    does where no side is named. Raises Unreadable.
    """
    if truncate_prompt_tokens is None:
        return None
    try:
        tokens = int(truncate_prompt_tokens)
    except (ValueError, OverflowError) as error:
        raise Unreadable("unexpected fields") from error
    if tokens < 0:
        return None
    if tokens == 0 or side not in (None, "left", "right"):
        raise Unreadable("truncated prompt", tokens)
    return Truncation(tokens, left if side is None else side == "left", named=side is not None)


def keeps_end(truncate_prompt_tokens: Scalar, side: Scalar, *, left: bool = True) -> bool:
    """Whether the engine keeps the last tokens of what is longer than the model's context, where `truncation_of` found
    the fields to be right.
    """
    to_context = truncate_prompt_tokens is not None and int(truncate_prompt_tokens) < 0
    return to_context and (left if side is None else side == "left")


def answer_tokens(*asked: Scalar) -> int:
    """Tokens that an engine keeps free for its answer where it cuts a prompt to its context: the first that is given.
    What is no number it refuses.
    """
    given = next((each for each in asked if each is not None), 0)
    try:
        return max(0, int(given))
    except (ValueError, OverflowError):
        return 0
