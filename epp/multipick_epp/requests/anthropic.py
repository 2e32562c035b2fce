"""Anthropic messages: `/v1/messages`, as vLLM turns them into a chat (`entrypoints/anthropic/serving.py`)."""

import json
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from multipick_epp.requests.body import Scalar, Unreadable, check_values, salt
from multipick_epp.requests.chat_fields import Function, find_media
from multipick_epp.requests.prompt import Api, Chat, ChatMessage, Prompt, Sent

_BILLING = "x-anthropic-billing-header"
"""How Claude Code's attribution begins. It differs in every request, so the engine leaves it out."""


class Block(msgspec.Struct):
    """A content block of any type."""

    type: str
    text: str | None = None
    source: dict[str, Any] | None = None
    id: str | None = None
    tool_use_id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    content: str | list[dict[str, Any]] | None = None
    thinking: str | None = None


class SentMessage(msgspec.Struct):
    """A message as clients send it."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(msgspec.Struct):
    """A tool that the model may call."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None
    defer_loading: bool | None = None


class Typed(msgspec.Struct):
    """A choice of which only the type matters here."""

    type: str


class OutputConfig(msgspec.Struct):
    """How much the model shall think."""

    effort: str | None = None


class Body(msgspec.Struct):
    """The fields that decide the prompt or its cache use."""

    messages: list[SentMessage]
    model: str | None = None
    system: str | list[Block] | None = None
    tools: list[Tool] | None = None
    tool_choice: Typed | None = None
    thinking: Typed | None = None
    output_config: OutputConfig | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    cache_salt: str | None = None
    extra_key: Scalar = None


_DECODER = msgspec.json.Decoder(Body)


def parse(body: bytes) -> Prompt:
    """Raises Unreadable, msgspec.DecodeError, UnicodeDecodeError or RecursionError."""
    check_values(body)
    sent = _DECODER.decode(body)
    messages = _messages(sent)
    media = find_media(messages)
    return Prompt(
        model=sent.model,
        source=Chat(
            messages=messages,
            tools=None if sent.tools is None else [_tool(tool) for tool in sent.tools],
            tool_choice_none=sent.tool_choice is not None and sent.tool_choice.type == "none",
            template_kwargs=sent.chat_template_kwargs or {},
            reasoning_effort=sent.output_config.effort if sent.output_config else None,
            thinking_off=sent.thinking is not None and sent.thinking.type == "disabled",
            inline_system=any(message.role == "system" for message in sent.messages),
            multimodal=media is not None,
            sent=Sent(Api.MESSAGES, body),
        ),
        cache_salt=salt(sent.cache_salt, sent.extra_key),
        guessed_tokens=media or 0,
    )


def _messages(sent: Body) -> list[ChatMessage]:
    messages: list[ChatMessage] = []
    if system := _system(sent.system or ""):
        messages.append({"role": "system", "content": system})
    for message in sent.messages:
        if message.role == "system":
            if system := _system(message.content, inline=True):
                messages.append({"role": "system", "content": system})
        elif isinstance(message.content, str):
            messages.append({"role": message.role, "content": message.content})
        else:
            _append(message.role, message.content, messages)
    return messages


def _system(content: str | list[Block], inline: bool = False) -> str:
    """The text of a system prompt. Only of the leading one, a plain text keeps Claude Code's attribution."""
    if isinstance(content, str):
        return "" if inline and content.startswith(_BILLING) else content
    if any(block.type in ("tool_addition", "tool_removal") for block in content):
        raise Unreadable("tools that change")
    texts = (block.text for block in content if block.type == "text" and block.text)
    return "".join(text for text in texts if not text.startswith(_BILLING))


def _append(role: Literal["user", "assistant"], blocks: Iterable[Block], messages: list[ChatMessage]) -> None:
    """Adds a message of blocks; a user's tool results become messages of their own, before it."""
    parts: list[str | dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    thoughts: list[str] = []
    for block in blocks:
        match block.type:
            case "text":
                if block.text:
                    parts.append({"type": "text", "text": block.text})
            case "image":
                if block.source:
                    parts.append({"type": "image_url"})
            case "thinking":
                if block.thinking is not None:
                    thoughts.append(block.thinking)
            case "tool_use":
                calls.append(_call(block))
            case "tool_result" if role == "user":
                messages.extend(_tool_result(block))
            case "tool_result":
                parts.append({"type": "text", "text": f"Tool result: {block.content or ''}"})
            case "redacted_thinking" | "tool_reference":
                pass
            case _:
                raise Unreadable("unknown content part")
    message: ChatMessage = {"role": role}
    if thoughts:
        message["reasoning"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    if len(parts) == 1 and isinstance(parts[0], dict) and parts[0]["type"] == "text":
        message["content"] = parts[0]["text"]
    elif parts:
        message["content"] = parts
    if role == "assistant" or parts:
        messages.append(message)


def _call(block: Block) -> dict[str, Any]:
    if block.id is None:
        raise Unreadable("unknown tool call")  # the engine makes one up from the clock
    arguments = json.dumps(block.input or {})  # as the engine writes it: some models are shown this very text
    return {"id": block.id, "function": {"arguments": arguments, "name": block.name or ""}, "type": "function"}


def _tool_result(block: Block) -> Iterable[ChatMessage]:
    """One message with the text; then one with the images and one with the tools named in it, where there are any."""
    call = block.tool_use_id or ""
    items = block.content if isinstance(block.content, list) else []
    text = block.content if isinstance(block.content, str) else "\n".join(_text(i) for i in items if _is(i, "text"))
    yield {"role": "tool", "tool_call_id": call, "content": text}
    if images := [item for item in items if _is(item, "image")]:
        yield {"role": "user", "content": [{"type": "image_url"} for _ in images]}
    names = [item.get("tool_name") or item.get("name") for item in items if _is(item, "tool_reference")]
    if names := [name for name in names if name]:
        parts: list[str | dict[str, Any]] = [{"type": "tool_reference", "name": name} for name in names]
        yield {"role": "tool", "tool_call_id": call, "content": parts}


def _is(item: dict[str, Any], kind: str) -> bool:
    return item.get("type") == kind


def _text(item: dict[str, Any]) -> str:
    text = item.get("text", "")
    if not isinstance(text, str):
        raise Unreadable("unknown content part")
    return text


def _tool(tool: Tool) -> dict[str, Any]:
    schema = tool.input_schema if "type" in tool.input_schema else tool.input_schema | {"type": "object"}
    return Function(tool.name, tool.description, schema, tool.strict, tool.defer_loading).for_template()
