"""Token ids from an engine's own `/tokenize`, for models whose tokenizer is not at hand.

It costs a round trip and the engine's time (4.4 ms for 1,000 tokens, 19 ms for 8,000), and it knows no
`reasoning_effort` and no `documents` of its own; both go as template variables, which is where the engine puts them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from multipick_epp.engines import EngineClient, Unanswered, Why
from multipick_epp.requests.prompt import Chat, Text, TokenIds, TokenSource
from multipick_epp.tokens.outcome import NoText, Untokenised
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


class RemoteTokenizer:
    """Asks one engine after the other, as `choose` names them."""

    def __init__(
        self, engines: EngineClient, choose: Callable[[], Endpoint | None], model: str, deadline_s: float
    ) -> None:
        """`choose` gives an engine that is ready, if any. The client stays the caller's."""
        self._engines = engines
        self._choose = choose
        self._model = model
        self._deadline_s = deadline_s

    async def encode(self, source: TokenSource) -> Sequence[int] | Untokenised:
        """As `Tokenizer.encode`; of a prompt with media, nothing."""
        if isinstance(source, TokenIds):
            return source.ids
        endpoint = self._choose()
        if endpoint is None:
            return Untokenised(_NOBODY)
        try:
            question = msgspec.json.encode({"model": self._model} | _body(source))
        except NoText as none:
            return Untokenised(none.reason)
        answer = await self._engines.tokenize(endpoint, question, self._deadline_s)
        return Untokenised(_REASONS[answer.why]) if isinstance(answer, Unanswered) else answer


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
