"""Token ids from an engine itself, for models and prompts that can't be tokenised here.

A chat goes to the engine's render paths where those are open: the engine gets the client's own request and answers its
ids. Else to `/tokenize`, which is always open, writes chats by the model's template, and knows less: `reasoning_effort`
and `documents` go as template variables, which is where the engine puts them, and parts of Responses as plain texts.
It is never believed for Harmony (gpt-oss), whose chats engines write in another way than `/tokenize` does.

Either costs a round trip and the engine's time: 4.4 ms for 1,000 tokens, 19 ms for 8,000.
"""

import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from multipick_epp.engines import EngineClient, Unanswered, Why
from multipick_epp.requests.base64_data import CUT
from multipick_epp.requests.chat_fields import TEXT_PARTS
from multipick_epp.requests.prompt import Api, Chat, ChatMessage, Text, TokenIds, TokenSource
from multipick_epp.tokens.chat_text import NOT_VARIABLES
from multipick_epp.tokens.outcome import NoText, Untokenised
from multipick_epp.tokens.settings import EngineSettings
from multipick_epp.types import Endpoint

_NOBODY = "no engine to ask"
_REASONS = {
    Why.AWAY: "engine can't be reached",
    Why.SLOW: "engine is slow",
    Why.REFUSED: "refused by the engine",
    Why.TOO_LONG: "too long",
    Why.UNREADABLE: "unknown answer of the engine",
}
UNANSWERED = frozenset({_NOBODY, _REASONS[Why.AWAY], _REASONS[Why.SLOW]})
"""Reasons of `Untokenised` that say nothing about the prompt: the same engine may give its ids the next time."""

_RENDERED: Mapping[Api, str] = {
    Api.CHAT: "/v1/chat/completions",
    Api.RESPONSES: "/v1/responses",
    Api.MESSAGES: "/v1/messages",
}
"""The APIs whose chats engines render."""

_CLOSED = frozenset({403, 404, 405, 501})
_CLOSED_S = 300.0
"""How long an engine's render paths count as closed; it may be started again with them open."""

_HARMONY = array("I", [200006, 17360, 200008])
"""`<|start|>system<|message|>`, with which every chat in Harmony begins, and no other model's."""


class RemoteTokenizer:
    """Asks one engine after the other, as `choose` names them."""

    def __init__(
        self,
        engines: EngineClient,
        choose: Callable[[], Endpoint | None],
        model: str,
        deadline_s: float,
        settings: EngineSettings | None = None,
    ) -> None:
        """`choose` gives an engine that is ready, if any. The client stays the caller's."""
        self._engines = engines
        self._choose = choose
        self._model = model
        self._deadline_s = deadline_s
        self.settings = settings or EngineSettings()
        self._closed_until_s: dict[Endpoint, float] = {}  # engines whose render paths are closed; by `time.monotonic`

    async def encode(self, source: TokenSource) -> Sequence[int] | Untokenised:
        """As `Tokenizer.encode`; of a prompt with media, nothing."""
        if isinstance(source, TokenIds):
            return source.ids
        endpoint = self._choose()
        if endpoint is None:
            return Untokenised(_NOBODY)
        try:
            if isinstance(source, Text):
                if source.truncation is not None:
                    raise NoText("truncated prompt")  # `/tokenize` cuts nothing
                question = {"prompt": source.text, "add_special_tokens": source.add_special_tokens}
                return _result(await self._tokenize(endpoint, question))
            if source.multimodal:
                raise NoText("media")
            if source.chat_template is not None and not self.settings.trust_request_chat_template:
                raise NoText("template in the request")  # engines refuse it
            if source.sent is not None and CUT.encode() in source.sent.body:
                raise NoText("base64 in a text")
            rendered = await self._rendered(endpoint, source)
            return await self._by_tokenize(endpoint, source) if rendered is None else rendered
        except NoText as none:
            return Untokenised(none.reason)

    async def _rendered(self, endpoint: Endpoint, chat: Chat) -> Sequence[int] | Untokenised | None:
        """None where the engine's render paths are closed."""
        now_s = time.monotonic()
        if now_s < self._closed_until_s.get(endpoint, now_s):
            return None
        path = _RENDERED.get(chat.sent.api) if chat.sent else None
        if path is None or chat.sent is None:
            path = _RENDERED[Api.CHAT]
            request = _as_json({"model": self._model} | _request(chat, self._effort(chat)))
        else:
            request = chat.sent.body
        answer = await self._engines.render(endpoint, path, request, self._deadline_s)
        if isinstance(answer, Unanswered) and answer.status in _CLOSED:
            open_soon = {one: until_s for one, until_s in self._closed_until_s.items() if now_s < until_s}
            self._closed_until_s = open_soon | {endpoint: now_s + _CLOSED_S}
            return None
        return _result(answer)

    async def _by_tokenize(self, endpoint: Endpoint, chat: Chat) -> Sequence[int] | Untokenised:
        if chat.inline_system:
            raise NoText("system messages in between")
        if chat.truncation is not None:
            raise NoText("truncated prompt")
        if not NOT_VARIABLES.isdisjoint(chat.template_kwargs):
            raise NoText("not a template variable")  # here they would be taken
        hidden = chat.tool_choice_none and self.settings.exclude_tools_when_tool_choice_none
        answer = await self._tokenize(endpoint, _question(chat, None if hidden else chat.tools, self._effort(chat)))
        if isinstance(answer, array) and answer[: len(_HARMONY)] == _HARMONY:
            raise NoText("only the engine writes these chats")
        return _result(answer)

    def _effort(self, chat: Chat) -> str | None:
        return (self.settings.disabled_thinking_effort or "none") if chat.thinking_off else chat.reasoning_effort

    async def _tokenize(self, endpoint: Endpoint, question: Mapping[str, Any]) -> "array[int] | Unanswered":
        body = _as_json({"model": self._model, **question})
        return await self._engines.tokenize(endpoint, body, self._deadline_s)


def _as_json(request: Mapping[str, Any]) -> bytes:
    """Raises NoText for what could just be decoded, and is nested one level deeper now."""
    try:
        return msgspec.json.encode(request)
    except RecursionError as error:
        raise NoText("nested too deeply") from error


def _result(answer: "array[int] | Unanswered") -> Sequence[int] | Untokenised:
    return Untokenised(_REASONS[answer.why]) if isinstance(answer, Unanswered) else answer


def _request(chat: Chat, effort: str | None) -> dict[str, Any]:
    """The chat as a request for a completion, less its model."""
    optional = {
        "tools": chat.tools,
        "tool_choice": "none" if chat.tool_choice_none else None,
        "documents": chat.documents,
        "chat_template": chat.chat_template,
        "reasoning_effort": effort,
    }
    return _common(chat) | _given(optional) | {"chat_template_kwargs": chat.template_kwargs}


def _question(chat: Chat, tools: Sequence[Mapping[str, Any]] | None, effort: str | None) -> dict[str, Any]:
    """The chat for `/tokenize`, less its model."""
    variables = dict(chat.template_kwargs)
    if effort is not None:
        variables = {"enable_thinking": effort != "none"} | variables | {"reasoning_effort": effort}
    if chat.documents is not None:
        variables["documents"] = chat.documents
    optional = {"tools": tools, "chat_template": chat.chat_template}
    return _common(chat) | _given(optional) | {"chat_template_kwargs": variables}


def _common(chat: Chat) -> dict[str, Any]:
    return {
        "messages": [_plain(message) for message in chat.messages],
        "add_generation_prompt": chat.add_generation_prompt,
        "continue_final_message": chat.continue_final_message,
        "add_special_tokens": chat.add_special_tokens,
    }


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _plain(message: ChatMessage) -> ChatMessage:
    """The message with the parts of Responses as the parts of a chat, which mean the same to the engine."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts = [part if isinstance(part, str) else _plain_part(part) for part in content]
    return {**message, "content": parts}


def _plain_part(part: dict[str, Any]) -> dict[str, Any]:
    kind = part.get("type")
    if kind in ("input_text", "output_text"):
        return {**part, "type": "text", "text": part[TEXT_PARTS[kind]]}
    return part
