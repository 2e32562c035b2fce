"""The messages of a request -> the messages that the template sees (the rules of vLLM 0.32, `renderers/`).

The recordings in tests/unit/tokens show the engine's own result for each rule.
"""

import json
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from multipick_epp.requests.chat_fields import TEXT_PARTS, media_of, only_texts
from multipick_epp.requests.prompt import ChatMessage
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.settings import ContentFormat

MEDIA_MARK = "\ue000media\ue000"
"""Stands where a message with media begins: from the first mark on, the text is not what the engine sees."""

_SPEAKERS = frozenset({"user", "assistant"})

_BILLING = "x-anthropic-billing-header"

_PART_FIELDS = frozenset({
    "audio_embeds", "audio_url", "closed", "data", "file", "image_embeds", "image_pil", "image_url", "input_audio",
    "name", "prompt_cache_breakpoint", "refusal", "text", "thinking", "type", "uuid", "video_embeds", "video_url",
})  # fmt: skip
"""The fields of a content part that its type explains; the template gets all others as they are."""


def conversation(
    sent: Sequence[ChatMessage], content_format: ContentFormat, knows_developers: bool, *, texts: bool = False
) -> list[dict[str, Any]]:
    """What the template gets as `messages`. `texts`: they are `only_texts`, which need not be found out again.

    Raises NoText.
    """
    if not sent:
        raise NoText("no messages")
    if content_format == "string" and sent[0]["role"] != "developer" and _is_plain(sent[1:], texts):
        return [_message(sent[0], content_format), *sent[1:]]  # type: ignore[list-item]
    messages = [_message(message, content_format) for message in sent]
    if not knows_developers and "developer" in map(itemgetter("role"), messages):
        messages = _merge_system([_as_system(message) for message in messages])
    return messages


def inline_system_first(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The texts of all system messages in one, at the front: for templates that take no later ones."""
    system = [str(message.get("content")) for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": "".join(system)}, *others] if system else others


def _is_plain(messages: Sequence[ChatMessage], texts: bool) -> bool:
    """Whether `_message` would write all of these as they are."""
    return (
        (texts or only_texts(messages))
        and {*map(itemgetter("role"), messages)} <= _SPEAKERS
        and {*map(next, map(iter, messages))} <= {"role"}
    )


def _message(sent: ChatMessage, content_format: ContentFormat) -> dict[str, Any]:
    """Fields that are not named here don't reach the template. Their order matters where it prints a message."""
    role = sent["role"]
    content = sent.get("content")
    plain = isinstance(content, str) and content_format == "string" and not content.startswith(_BILLING)
    message: dict[str, Any] = {
        "role": role,
        "content": content if plain else _content(_parts(content, role), content_format),
    }
    if role == "assistant":
        calls = sent.get("tool_calls")
        if calls:
            message["tool_calls"] = [_parsed_call(call) for call in calls]
        reasoning = sent.get("reasoning")
        if reasoning is not None:
            message["reasoning"] = message["reasoning_content"] = reasoning
    elif role == "tool":
        if "tool_call_id" in sent:
            message["tool_call_id"] = sent["tool_call_id"]
        message["content"] = _joined_texts(message["content"])
    if "name" in sent:
        message["name"] = sent["name"]
    if isinstance(sent.get("task"), str):
        message["task"] = sent["task"]
    if role == "developer":
        message["tools"] = sent.get("tools")
    return message


def _parts(content: str | list[str | dict[str, Any]] | None, role: str) -> Sequence[str | dict[str, Any]]:
    parts = [content] if isinstance(content, str) else content or []
    return [*_without_billing(parts)] if role == "system" else parts


def _content(parts: Sequence[str | dict[str, Any]], content_format: ContentFormat) -> str | list[dict[str, Any]]:
    """A mark stands before all parts of a message with media: templates may well show its media first."""
    if content_format == "openai":
        structured = [_structured(part) for part in parts]
        has_media = any(not isinstance(part, str) and media_of(part) is not None for part in parts)
        return [{"type": "text", "text": MEDIA_MARK}, *structured] if has_media else structured
    # The engine puts placeholders of media in front of the message's text, each model in its own way, and leaves out
    # empty texts.
    texts = [_text(part) for part in parts]
    if None in texts:
        texts.insert(0, MEDIA_MARK)
    return "\n".join(filter(None, texts))


def _structured(part: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    extra = {key: value for key, value in part.items() if key not in _PART_FIELDS}
    modality = media_of(part)
    if modality is not None:
        return {"type": modality} | extra
    if part["type"] == "tool_reference":
        return {"type": "tool_reference", "name": part["name"]}
    return {"type": "text", "text": _text(part)} | extra


def _text(part: str | dict[str, Any]) -> str | None:
    """The text of a part that the parser has checked; None for media."""
    if isinstance(part, str):
        return part
    if media_of(part) is not None:
        return None
    text: str = part[TEXT_PARTS[part["type"]]]
    return text


def _joined_texts(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Most templates want the result of a tool as a string, whatever they want elsewhere."""
    if isinstance(content, str) or any(part["type"] != "text" for part in content):
        return content
    return "\n".join(part["text"] for part in content)


def _without_billing(parts: Iterable[str | dict[str, Any]]) -> Iterable[str | dict[str, Any]]:
    """Leaves out Claude Code's attribution line, as the engine does: it differs in every request."""
    for part in parts:
        text = part if isinstance(part, str) else part.get("text") if part.get("type") == "text" else None
        if not (isinstance(text, str) and text.startswith(_BILLING)):
            yield part
        elif rest := text.partition("\n")[2]:
            yield rest if isinstance(part, str) else {**part, "text": rest}


def _parsed_call(call: dict[str, Any]) -> dict[str, Any]:
    """A call with its arguments as an object, which is what templates expect; {} where they are none. Raises NoText."""
    function = call["function"]
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except json.JSONDecodeError:
        arguments = {}
    except (ValueError, RecursionError) as error:  # a number or a nesting that Python refuses, and so the engine
        raise NoText("arguments of a tool call") from error
    return {**call, "function": {**function, "arguments": arguments if isinstance(arguments, dict) else {}}}


def _as_system(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] != "developer":
        return message
    return {key: value for key, value in message.items() if key != "tools"} | {"role": "system"}


def _merge_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One system message at the front, if there are several or a late one: some templates take no other."""
    system = [index for index, message in enumerate(messages) if message["role"] == "system"]
    if system == [0]:
        return messages
    texts = [_plain(messages[index]["content"]) for index in system]
    merged = {"role": "system", "content": "\n\n".join(text for text in texts if text)}
    return [merged, *(message for message in messages if message["role"] != "system")]


def _plain(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if "text" in part)
