"""OpenAI responses: `/v1/responses`, as vLLM turns them into a chat (`entrypoints/openai/responses/utils.py`).

Items of one assistant turn (reasoning, text, calls) become one message, as far as the engine joins them. What it takes
from its own store (`previous_response_id`) can't be known here.
"""

from typing import Any

import msgspec

from multipick_epp.requests.body import Scalar, Unreadable, check_values, salt
from multipick_epp.requests.chat_fields import Function, answer_tokens, find_media
from multipick_epp.requests.prompt import Api, Chat, ChatMessage, Prompt, Sent

_CUSTOM_PARAMETERS = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "The freeform text payload for this tool."}},
    "required": ["input"],
    "additionalProperties": False,
}
"""The engine shows a custom tool to the model as a function with one text argument."""

_NAMESPACE_CHARS = 256
"""A name space may have thousands of functions, and its name becomes a part of the name of each."""


class Reasoning(msgspec.Struct):
    """How much the model shall think."""

    effort: str | None = None


class Tool(msgspec.Struct):
    """A tool of any type; only functions, custom tools and name spaces of functions are shown to the model."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    tools: list["Tool"] = []


class Item(msgspec.Struct):
    """One input item of any type."""

    type: str | None = None
    role: str | None = None
    content: str | list[dict[str, Any]] | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[str | dict[str, Any]] | None = None
    summary: list[dict[str, Any]] = []
    encrypted_content: str | None = None


class Body(msgspec.Struct):
    """The fields that decide the prompt or its cache use."""

    input: str | list[Item]
    instructions: str | None = None
    model: str | None = None
    previous_response_id: str | None = None
    previous_input_messages: list[Any] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    reasoning: Reasoning | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    truncation: Scalar = "disabled"  # else what is longer than the model's context is cut
    max_output_tokens: Scalar = None
    cache_salt: str | None = None
    extra_key: Scalar = None


_DECODER = msgspec.json.Decoder(Body)


def parse(body: bytes) -> Prompt:
    """Raises Unreadable, msgspec.DecodeError, UnicodeDecodeError or RecursionError."""
    check_values(body)
    sent = _DECODER.decode(body)
    if sent.previous_response_id is not None or sent.previous_input_messages is not None:
        raise Unreadable("stored conversation")
    messages = _messages(sent)
    media = find_media(messages)
    continues = _continues(sent.input)
    return Prompt(
        model=sent.model,
        source=Chat(
            messages=messages,
            tools=[f.for_template() for tool in sent.tools for f in _functions(tool)] if sent.tools else None,
            tool_choice_none=sent.tool_choice == "none",
            add_generation_prompt=not continues,
            continue_final_message=continues,
            add_special_tokens=True,  # unlike chat completions: the engine's default for it is not overridden here
            template_kwargs=sent.chat_template_kwargs or {},
            reasoning_effort=sent.reasoning.effort if sent.reasoning else None,
            multimodal=media is not None,
            sent=Sent(Api.RESPONSES, body),
        ),
        cache_salt=salt(sent.cache_salt, sent.extra_key),
        guessed_tokens=media or 0,
        keeps_end=sent.truncation != "disabled",
        answer_tokens=answer_tokens(sent.max_output_tokens),
    )


def _messages(sent: Body) -> list[ChatMessage]:
    messages: list[ChatMessage] = []
    if sent.instructions:
        messages.append({"role": "system", "content": sent.instructions})
    if isinstance(sent.input, str):
        messages.append({"role": "user", "content": sent.input})
        return messages
    start = len(messages)
    for item in sent.input:
        last = messages[-1] if len(messages) > start and messages[-1]["role"] == "assistant" else None
        _append(item, messages, last)
    return messages


def _append(item: Item, messages: list[ChatMessage], last: ChatMessage | None) -> None:
    """Adds an item to `messages`, or to `last`, the assistant message that it continues, if any."""
    match item.type:
        case "function_call" | "custom_tool_call":
            if last is None:
                last = {"role": "assistant"}
                messages.append(last)
            if (calls := last.get("tool_calls")) is None:
                calls = last["tool_calls"] = []
            calls.append(_call(item))
        case "function_call_output" | "custom_tool_call_output":
            messages.append({"role": "tool", "content": item.output, "tool_call_id": item.call_id})
        case "reasoning":
            if last is not None and last.get("reasoning") is None:
                last["reasoning"] = _reasoning(item)
            else:
                messages.append({"role": "assistant", "reasoning": _reasoning(item)})
        case "message" | None if item.role == "assistant":
            if last is not None and last.get("content") is None:
                last["content"] = _answer(item)
            else:
                messages.append({"role": "assistant", "content": _answer(item)})
        case "message" | None if item.role is not None:
            content: Any = item.content
            messages.append({"role": item.role, "content": content})
        case _:
            raise Unreadable("unknown input item")


def _call(item: Item) -> dict[str, Any]:
    arguments = item.arguments
    if item.type == "custom_tool_call":
        arguments = msgspec.json.encode({"input": item.input or ""}).decode()
    if item.call_id is None or item.name is None or arguments is None:
        raise Unreadable("unknown tool call")
    name = f"{item.namespace}__{item.name}" if item.namespace else item.name
    return {"id": item.call_id, "function": {"name": name, "arguments": arguments}, "type": "function"}


def _reasoning(item: Item) -> str:
    if item.encrypted_content:
        raise Unreadable("encrypted reasoning")
    parts = item.content or item.summary
    text = parts[0].get("text") if parts and isinstance(parts, list) else ""
    if not isinstance(text, str):
        raise Unreadable("unknown input item")
    return text


def _answer(item: Item) -> str:
    """The text of an earlier answer: only its first part, as in the engine."""
    if isinstance(item.content, str):
        return item.content
    text = item.content[0].get("text") if item.content else None
    if not isinstance(text, str):
        raise Unreadable("unknown input item")
    return text


def _continues(items: str | list[Item]) -> bool:
    """Whether the last item is an unfinished answer that the model shall go on with."""
    if isinstance(items, str) or not items:
        return False
    last = items[-1]
    return last.type in (None, "message", "reasoning") and last.status in ("in_progress", "incomplete")


def _functions(tool: Tool) -> list[Function]:
    if tool.type == "namespace":
        if len(tool.name or "") > _NAMESPACE_CHARS:
            raise Unreadable("name too long")
        functions = [f for inner in tool.tools if inner.type == "function" for f in _functions(inner)]
        return [msgspec.structs.replace(f, name=f"{tool.name}__{f.name}") for f in functions]
    if tool.type not in ("function", "custom"):
        return []
    if tool.name is None:
        raise Unreadable("unexpected fields")
    if tool.type == "custom":
        return [Function(tool.name, tool.description, _CUSTOM_PARAMETERS)]
    return [Function(tool.name, tool.description, tool.parameters, tool.strict, tool.defer_loading)]
