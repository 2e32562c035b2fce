"""OpenAI chat completions: `/v1/chat/completions`."""

from typing import Any, Literal, Required, TypedDict

import msgspec

from multipick_epp.requests.body import Scalar, Unreadable, check_values, flag, lenient_bool, salt
from multipick_epp.requests.chat_fields import Function, answer_tokens, find_media, keeps_end, only_texts, truncation_of
from multipick_epp.requests.lora_path import lora_names
from multipick_epp.requests.prompt import Api, Chat, ChatMessage, Prompt, Sent


class CalledFunction(TypedDict):
    """The function of a call that the model made earlier."""

    arguments: str
    name: str


class ToolCall(TypedDict):
    """A call that the model made earlier."""

    id: str
    function: CalledFunction
    type: Literal["function"]


class DeclaredFunction(TypedDict, total=False):
    """The function of a tool in a developer's message."""

    name: Required[str]
    description: str
    parameters: dict[str, Any]
    strict: bool | None


class DeveloperTool(TypedDict):
    """A tool in a developer's message."""

    function: DeclaredFunction
    type: Literal["function"]


class SentMessage(TypedDict, total=False):
    """A message as clients send it."""

    role: Required[str]
    content: str | list[str | dict[str, Any]] | None
    name: str
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: str | None
    reasoning: str | None
    reasoning_content: str | None  # the older name
    tools: list[dict[str, Any]] | None
    task: str | None


class Tool(msgspec.Struct):
    """A tool that the model may call."""

    function: Function
    type: Literal["function"] = "function"
    defer_loading: bool | None = None

    def for_template(self) -> dict[str, Any]:
        """See `Function.for_template`."""
        if self.defer_loading is None:
            return self.function.for_template()
        if self.function.defer_loading is None:
            self.function.defer_loading = self.defer_loading
        return self.function.for_template() | {"defer_loading": self.defer_loading}


class Body(msgspec.Struct):
    """The fields that decide the prompt or its cache use."""

    messages: list[SentMessage]
    model: str | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    documents: list[dict[str, Any]] | None = None
    add_generation_prompt: Scalar = True
    continue_final_message: Scalar = False
    add_special_tokens: Scalar = False
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    truncate_prompt_tokens: Scalar = None
    truncation_side: Scalar = None
    max_completion_tokens: Scalar = None
    max_tokens: Scalar = None  # the older name
    prompt_logprobs: Any = None
    echo: Any = False
    cache_salt: str | None = None
    extra_key: Scalar = None
    lora_path: msgspec.Raw = msgspec.Raw()


_DECODER = msgspec.json.Decoder(Body)


def parse(body: bytes) -> Prompt:
    """Raises Unreadable, msgspec.DecodeError, UnicodeDecodeError or RecursionError."""
    check_values(body)
    sent = _DECODER.decode(body)
    truncation = truncation_of(sent.truncate_prompt_tokens, sent.truncation_side)
    messages: list[ChatMessage] = sent.messages  # type: ignore[assignment]  # whatever is not in both is an odd field
    media = None
    texts = only_texts(messages)
    if not texts:
        messages = [message(m) for m in sent.messages]
        media = find_media(messages)
    return Prompt(
        model=sent.model,
        source=Chat(
            messages=messages,
            tools=None if sent.tools is None else [tool.for_template() for tool in sent.tools],
            tool_choice_none=sent.tool_choice == "none",
            documents=sent.documents,
            add_generation_prompt=flag(sent.add_generation_prompt),
            continue_final_message=flag(sent.continue_final_message),
            add_special_tokens=flag(sent.add_special_tokens),
            chat_template=sent.chat_template,
            template_kwargs=sent.chat_template_kwargs or {},
            reasoning_effort=sent.reasoning_effort,
            multimodal=media is not None,
            texts=texts,
            truncation=truncation,
            sent=Sent(Api.CHAT, body),
        ),
        cache_salt=salt(sent.cache_salt, sent.extra_key),
        guessed_tokens=media or 0,
        reads_cache=sent.prompt_logprobs is None and not lenient_bool(sent.echo),
        keeps_end=keeps_end(sent.truncate_prompt_tokens, sent.truncation_side),
        answer_tokens=answer_tokens(sent.max_completion_tokens, sent.max_tokens),
        max_tokens=truncation and truncation.tokens,
        lora_names=lora_names(sent.lora_path),
    )


def message(sent: SentMessage) -> ChatMessage:
    """A message as the engine has it after its own check: with one name for `reasoning`, and known fields first.

    Templates may print a tool or a call as JSON, so the order of its fields matters. Raises Unreadable.
    """
    older = sent.pop("reasoning_content", None)
    if older is not None and sent.get("reasoning") is None:
        sent["reasoning"] = older
    if calls := sent.get("tool_calls"):
        sent["tool_calls"] = [_tool_call(call) for call in calls]
    if tools := sent.get("tools"):
        sent["tools"] = _developer_tools(tools)
    return sent


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    try:
        msgspec.convert(call, ToolCall)
    except msgspec.ValidationError as error:
        raise Unreadable("unknown tool call") from error
    function = _known_first(call["function"], "arguments", "name")
    return _known_first(call | {"function": function}, "id", "function", "type")


def _developer_tools(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tools in a message; the engine leaves those alone that are not of its form."""
    try:
        msgspec.convert(tools, list[DeveloperTool])
    except msgspec.ValidationError:
        return tools
    names = ("name", "description", "parameters", "strict")
    return [_known_first(t | {"function": _known_first(t["function"], *names)}, "function", "type") for t in tools]


def _known_first(fields: dict[str, Any], *known: str) -> dict[str, Any]:
    return {name: fields[name] for name in known if name in fields} | fields
