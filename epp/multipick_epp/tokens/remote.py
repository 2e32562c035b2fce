"""Token ids from an engine's own `/tokenize`, for models whose tokenizer is not at hand.

It costs a round trip and the engine's time (4.4 ms for 1,000 tokens, 19 ms for 8,000), and it knows no
`reasoning_effort` and no `documents` of its own; both go as template variables, which is where the engine puts them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import msgspec

from multipick_epp.engines.answers import read_at_most
from multipick_epp.requests.prompt import Chat, Text, TokenIds, TokenSource
from multipick_epp.tokens.outcome import NoText, Untokenised

MAX_ANSWER_BYTES = 32_000_000
_NOBODY, _SLOW, _AWAY = "no engine to ask", "engine is slow", "engine can't be reached"
UNANSWERED = frozenset({_NOBODY, _SLOW, _AWAY})
"""Reasons of `Untokenised` that say nothing about the prompt: the same engine may give its ids the next time."""


class _Answer(msgspec.Struct):
    tokens: list[int]


class RemoteTokenizer:
    """Asks one engine after the other, as `address` names them."""

    def __init__(
        self, session: aiohttp.ClientSession, address: Callable[[], str | None], model: str, deadline_s: float
    ) -> None:
        """`address` gives `http://host:port` of an engine that is ready, if any. The session stays the caller's."""
        self._session = session
        self._address = address
        self._model = model
        self._timeout = aiohttp.ClientTimeout(total=deadline_s)

    async def encode(self, source: TokenSource) -> Sequence[int] | Untokenised:
        """As `Tokenizer.encode`; of a prompt with media, nothing."""
        if isinstance(source, TokenIds):
            return source.ids
        address = self._address()
        if address is None:
            return Untokenised(_NOBODY)
        try:
            body = {"model": self._model} | _body(source)
            return await self._ask(f"{address}/tokenize", msgspec.json.encode(body))
        except NoText as none:
            return Untokenised(none.reason)
        except TimeoutError:
            return Untokenised(_SLOW)
        except (aiohttp.ClientError, OSError):
            return Untokenised(_AWAY)

    async def _ask(self, url: str, body: bytes) -> Sequence[int]:
        headers = {"content-type": "application/json"}
        async with self._session.post(url, data=body, headers=headers, timeout=self._timeout) as response:
            if response.status != 200:
                raise NoText("refused by the engine")
            answer = await read_at_most(response, MAX_ANSWER_BYTES)
        if answer is None:
            raise NoText("too long")
        try:
            return msgspec.json.decode(answer, type=_Answer).tokens
        except msgspec.DecodeError as error:
            raise NoText("unknown answer of the engine") from error


def _body(source: Text | Chat) -> dict[str, Any]:
    """The request without its model. Raises NoText for what the engine could not be told."""
    if isinstance(source, Text):
        return {"prompt": source.text, "add_special_tokens": source.add_special_tokens}
    if source.multimodal:
        raise NoText("media")
    if source.inline_system:
        raise NoText("system messages in between")
    variables = dict(source.template_kwargs)
    effort = "none" if source.thinking_off else source.reasoning_effort
    if effort is not None:
        variables = {"enable_thinking": effort != "none"} | variables | {"reasoning_effort": effort}
    if source.documents is not None:
        variables["documents"] = source.documents
    body: dict[str, Any] = {
        "messages": source.messages,
        "add_generation_prompt": source.add_generation_prompt,
        "continue_final_message": source.continue_final_message,
        "add_special_tokens": source.add_special_tokens,
        "chat_template_kwargs": variables,
    }
    optional = {"tools": source.tools, "chat_template": source.chat_template}
    return body | {name: value for name, value in optional.items() if value is not None}
