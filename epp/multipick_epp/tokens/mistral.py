"""Texts and chats of models with Mistral's own tokenizer, as vLLM 0.32 writes them (`tokenizers/mistral.py`).

Theory of operation: chats are written by the `mistral_common` library, which the engine uses too. It tokenises text by
text and puts control tokens between. Here it gets a tokenizer that gives a mark for each text instead of its ids; so
what it returns are control tokens and marks, and the texts are segments that are tokenised once and kept. Control
tokens are never recognised in a text.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from multipick_epp.requests.body import MAX_VALUES, Unreadable
from multipick_epp.requests.chat_fields import check_inner
from multipick_epp.requests.prompt import Api, Chat, ChatMessage
from multipick_epp.tokens.chunks import CHUNK_CHARS, chunks, spans_words
from multipick_epp.tokens.efforts import least_effort
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.segments import Ids, Literal, Segment, as_ids
from multipick_epp.tokens.settings import EngineSettings
from multipick_epp.tokens.special import Surround
from multipick_epp.tokens.texts import check_unicode

_CALL_ID_CHARS = 9
"""The engine keeps the last characters of a longer id of a call, of chats that come as such."""

_EFFORT_SINCE = 15
"""The first version of the tokenizer that tells the model its reasoning effort."""


class _Marks:
    """Stands in for the library's tokenizer while one chat is written; a mark is a number below 0."""

    def __init__(self, tokenizer: Tekkenizer) -> None:
        self._tokenizer = tokenizer
        self.texts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode(self, text: str, bos: bool, eos: bool) -> list[int]:
        """The mark of one more text, of which the library never wants special tokens."""
        self.texts.append(text)
        return [-len(self.texts)]

    def decode(self, *_: object, **__: object) -> str:
        """The library keeps a chat's text for people to read."""
        return ""


class Mistral:
    """What makes the ids of one model. Calls from several threads don't meet."""

    library = "mistral-common"
    inline_bytes = 2_000

    def __init__(self, path: Path, settings: EngineSettings) -> None:
        """Reads the file. Raises ValueError for one that is no tokenizer."""
        logging.getLogger("mistral_common").setLevel(logging.ERROR)  # it warns of what clients send
        try:
            self._whole: Any = MistralTokenizer.from_file(path)  # in mode "test", as the engine has it
        except Exception as error:  # the library raises many, and asserts
            raise ValueError(f"{path} is not a tokenizer: {error}") from error
        self._instruct: Any = self._whole.instruct_tokenizer
        tekken: Any = self._instruct.tokenizer
        self._tekken: Tekkenizer = tekken
        vocabulary = self._tekken.vocab()
        self._chunk_chars = None if spans_words(vocabulary) else CHUNK_CHARS
        self._control = {id_: piece for id_, piece in enumerate(vocabulary) if self._tekken.is_special(id_)}
        self.cuts: Mapping[Segment, Ids] = {piece: as_ids([id_]) for id_, piece in self._control.items()}
        self.surround = Surround(as_ids([self._tekken.bos_id]), b"")
        self._settings = settings
        self._tells_effort = int(self._tekken.version.value.removeprefix("v").partition("m")[0]) >= _EFFORT_SINCE
        self._least_effort = settings.disabled_thinking_effort or least_effort(self._try_effort)

    def split(self, text: str, start: int = 0) -> list[Segment]:
        """A text from `start` on, without special tokens around it."""
        pieces = chunks(text[start:], self._chunk_chars) if self._chunk_chars else [text[start:]]
        return [Literal(piece) for piece in pieces if piece]

    def segments(self, chat: Chat) -> list[Segment]:
        """The chat as control tokens and texts. Raises NoText."""
        marks = _Marks(self._tekken)
        writer = copy(self._instruct)
        writer.tokenizer = marks
        try:
            request = self._whole._instruct_request_normalizer.from_chat_completion_request(self._request(chat))
            written: list[int] = writer.encode_instruct(request).tokens
        except NoText:
            raise
        except Exception as error:  # the library raises its own, pydantic's, and asserts
            raise NoText("refused by mistral-common") from error
        for text in marks.texts:
            if not text.isascii():
                check_unicode(text)
        return [segment for id_ in written for segment in self._segments_of(id_, marks.texts)]

    def owns(self, segment: Segment) -> bool:
        """Nothing: its texts are tokenised as all others."""
        return False

    def tokenise(self, segments: Sequence[Segment]) -> dict[Segment, Ids]:
        """Their ids. Releases the GIL for most of the time. Raises NoText."""
        try:
            return {segment: as_ids(self._tekken.encode(segment[0], bos=False, eos=False)) for segment in segments}
        except Exception as error:  # ValueError, as of its regular expressions for a million spaces; and KeyError
            raise NoText("not a text") from error

    def _segments_of(self, id_: int, texts: Sequence[str]) -> Iterable[Segment]:
        return [self._control[id_]] if id_ >= 0 else self.split(texts[-1 - id_])

    def _request(self, chat: Chat) -> ChatCompletionRequest[Any]:
        """As the library wants it, which does not look whether the engine would take it. Raises NoText."""
        if chat.multimodal:
            raise NoText("media")
        if chat.chat_template is not None or chat.template_kwargs:
            raise NoText("template in the request")  # refused, but by Responses, which take variables for nothing good
        if not chat.messages:
            raise NoText("no messages")
        _check_results(chat)
        answered = chat.messages[-1]["role"] == "assistant"
        if chat.add_generation_prompt if answered else chat.continue_final_message:
            raise NoText("no message to continue")
        hidden = chat.tool_choice_none and self._settings.exclude_tools_when_tool_choice_none
        as_chat = chat.sent is None or chat.sent.api is not Api.RESPONSES
        effort = self._least_effort if chat.thinking_off else chat.reasoning_effort
        effort = effort or self._settings.default_chat_template_kwargs.get("reasoning_effort")
        options = {"reasoning_effort": effort} if self._tells_effort else {}
        messages: list[Any] = [_with_short_ids(message) if as_chat else message for message in chat.messages]
        return ChatCompletionRequest.from_openai(
            messages=messages,
            tools=None if hidden or chat.tools is None else [dict(tool) for tool in chat.tools],
            continue_final_message=chat.continue_final_message,
            **options,
        )

    def _try_effort(self, effort: str) -> Sequence[Segment] | None:
        try:
            return self.segments(Chat([{"role": "user", "content": "Hi"}], reasoning_effort=effort))
        except NoText:
            return None


def _check_results(chat: Chat) -> None:
    """Raises NoText where the results of tools, which the library decodes as JSON, hold too many values."""
    if chat.size <= 2 * MAX_VALUES:
        return
    contents = [message.get("content") or "" for message in chat.messages if message["role"] == "tool"]
    try:
        check_inner([each if isinstance(each, str) else "".join(map(_text, each)) for each in contents])
    except Unreadable as unreadable:
        raise NoText(unreadable.reason) from unreadable


def _text(part: str | dict[str, Any]) -> str:
    return part if isinstance(part, str) else str(part.get("text", ""))


def _with_short_ids(message: ChatMessage) -> Any:
    calls = message.get("tool_calls")
    if message["role"] == "assistant" and calls:
        return {**message, "tool_calls": [{**call, "id": call["id"][-_CALL_ID_CHARS:]} for call in calls]}
    if message["role"] == "tool" and isinstance(call_id := message.get("tool_call_id"), str):
        return {**message, "tool_call_id": call_id[-_CALL_ID_CHARS:]}
    return message
