"""The messages of a chat -> the lines of Harmony, by the rules of vLLM 0.32.

A chat (`parse_chat_inputs_to_harmony_messages`) and a request of the Responses API (`response_input_to_harmony`) come
to different lines, so the second is read from the request itself, not from the chat that it is for other models.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from multipick_epp.requests.prompt import Chat, ChatMessage
from multipick_epp.tokens.outcome import NoText

_BUILT_IN = frozenset({"web_search_preview", "code_interpreter", "container"})


class Line(NamedTuple):
    """One message. Each of its texts is tokenised by itself."""

    role: str
    texts: tuple[str, ...]
    name: str | None = None  # of a tool
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None

    @property
    def calls(self) -> bool:
        """Whether it calls a tool."""
        return self.role == "assistant" and self.recipient is not None


class Preamble(NamedTuple):
    """What a chat begins with, and its lines."""

    effort: str | None
    instructions: str | None
    tools: Sequence[Mapping[str, Any]]  # functions: name, description, parameters
    lines: Sequence[Line]


class _Effort(msgspec.Struct):
    effort: str | None = None


class _Responses(msgspec.Struct):
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    reasoning: _Effort | None = None


_RESPONSES = msgspec.json.Decoder(_Responses)


def chat_lines(chat: Chat, hide_tools: bool, least_effort: str) -> Preamble:
    """A chat completion's, or an Anthropic request's; `least_effort` stands for "no thinking". Raises NoText."""
    effort = least_effort if chat.thinking_off else chat.reasoning_effort
    messages = list(chat.messages)
    instructions = None
    if messages and messages[0]["role"] in ("system", "developer"):
        instructions = _flat(messages.pop(0).get("content"))
    names = {
        call.get("id"): call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()
    }
    tools = () if hide_tools else [tool["function"] for tool in chat.tools or ()]
    return Preamble(effort, instructions, tools, [line for each in messages for line in _of_message(each, names)])


def _of_message(message: ChatMessage, names: Mapping[Any, str]) -> Iterable[Line]:
    role = message["role"]
    content = message.get("content")
    calls = message.get("tool_calls") if role == "assistant" else None
    reasoning = message.get("reasoning") if role == "assistant" else None
    thoughts = [Line(role, (reasoning,), channel="analysis")] if reasoning else []
    if calls:
        if text := _flat(content):
            yield Line(role, (text,), channel="commentary")
        yield from thoughts
        for call in calls:
            function = call["function"]
            yield _call(function["name"], function.get("arguments") or "")
        return
    if role == "tool":
        yield _result(names.get(message.get("tool_call_id"), ""), _flat(content) or "")
        return
    yield from thoughts
    texts = _texts(content or "")
    if role == "assistant":
        if texts and texts[0]:
            yield Line(role, texts, channel="final")
    elif role in ("system", "developer"):
        if (instructions := _flat(content)) is not None:
            yield Line("developer", (instructions,))
    elif role == "user":
        yield Line(role, texts)
    else:
        raise NoText("unknown role")


def response_lines(body: bytes) -> Preamble:
    """A Responses request's. Raises NoText."""
    try:
        sent = _RESPONSES.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NoText("unexpected fields") from error
    instructions, items = sent.instructions, sent.input
    if instructions is None and isinstance(items, list) and items and items[0].get("role") in ("system", "developer"):
        instructions, items = _flat(items[0].get("content")), items[1:]
    tools = sent.tools or []
    if all(tool.get("type") in _BUILT_IN for tool in tools):
        tools = []
    functions = [tool for tool in tools if tool.get("type") == "function"]
    if any(tool.get("type") not in ("function", *_BUILT_IN) for tool in tools):
        raise NoText("unknown tool")
    effort = sent.reasoning.effort if sent.reasoning else None
    if isinstance(items, str):
        return Preamble(effort, instructions, functions, [Line("user", (items,))])
    names: dict[Any, str] = {}
    lines = [_of_item(item, names) for item in items]
    return Preamble(effort, instructions, functions, [line for line in lines if line is not None])


def _of_item(item: Mapping[str, Any], names: dict[Any, str]) -> Line | None:
    """`names`: of the functions called so far, by the call's id."""
    match item.get("type"):
        case None | "message":
            role = item.get("role")
            if role in ("system", "developer"):
                text = _flat(item.get("content"))
                return Line("developer", (text,)) if text else None
            if role not in ("user", "assistant"):
                raise NoText("unknown role")
            return Line(role, _texts(item.get("content")), channel="final" if role == "assistant" else None)
        case "function_call":
            names[item.get("call_id")] = _text(item.get("name"))
            return _call(_text(item.get("name")), _text(item.get("arguments")))
        case "function_call_output":
            if item.get("call_id") not in names:
                raise NoText("no call of this result")
            return _result(names[item["call_id"]], _text(item.get("output")))
        case "reasoning":
            thoughts = item.get("content")
            if not thoughts:
                return None
            if not isinstance(thoughts, list):
                raise NoText("unknown input item")
            return Line("assistant", ("\n".join(_text(part.get("text")) for part in thoughts),), channel="analysis")
        case _:
            raise NoText("unknown input item")


def without_old_thoughts(lines: Sequence[Line]) -> list[Line]:
    """Less the reasoning that led to an earlier final answer: the model is not shown it again."""
    finals = [at for at, line in enumerate(lines) if line.role == "assistant" and line.channel == "final"]
    last = finals[-1] if finals else -1
    return [line for at, line in enumerate(lines) if at >= last or line.channel != "analysis"]


def _call(name: str, arguments: str) -> Line:
    return Line("assistant", (arguments,), None, "commentary", f"functions.{name}", "json")


def _result(name: str, text: str) -> Line:
    return Line("tool", (text,), f"functions.{name}", "commentary", "assistant")


def _flat(content: Any) -> str | None:
    """The text of all parts in one; None where there is none."""
    if content is None or isinstance(content, str):
        return content
    texts = [part if isinstance(part, str) else part.get("text") for part in content]
    told = [_text(text) for text in texts if text is not None]
    return "".join(told) if told else None


def _texts(content: Any) -> tuple[str, ...]:
    if isinstance(content, str):
        return (content,)
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise NoText("unknown content part")
    return tuple(_text(part.get("text", "")) for part in content)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise NoText("not a text")
    return value
