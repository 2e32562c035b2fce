"""Chats of gpt-oss in Harmony, as vLLM 0.32 writes them (`entrypoints/openai/parser/harmony_utils.py`).

Theory of operation: a chat becomes lines, `<|start|>header<|message|>text<|end|>`. Headers, system texts and the
description of tools come from the `openai_harmony` library, which the engine uses too. Texts are tokenised by the
model's own tokenizer, with no special token recognised in them, in pieces that are kept: the library's own encoder
takes 2.6 us a token and holds up the whole process meanwhile. Loading checks that both make the same ids. Nearly no
text has a special token in it: so the model's usual way with texts does, which is quick, and another for the others.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import openai_harmony as library
from tokenizers import Tokenizer as Backend

from multipick_epp.requests.prompt import Api, Chat
from multipick_epp.tokens.chunks import CHUNK_CHARS, allows_chunks, chunks
from multipick_epp.tokens.fast import Encode
from multipick_epp.tokens.harmony_bounds import check_name, check_tools
from multipick_epp.tokens.harmony_lines import Line, chat_lines, response_lines, without_old_thoughts
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.segments import Ids, Literal, Segment, as_ids
from multipick_epp.tokens.settings import EngineSettings
from multipick_epp.tokens.texts import check_unicode

_EFFORTS = {effort.value.lower(): effort for effort in library.ReasoningEffort}
_START, _CHANNEL, _MESSAGE, _END, _CALL = "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>"
_PROBE = "In 2024,  1,234.5 people's\n\n\tdef f(x):\r\n  # naïve 東京 \u0301e <|end|> DON'T \U0001f469\u200d\U0001f467 "
_PLAIN_PROBE = _PROBE.replace(_END, "")
_OF_CALLS = frozenset({_START, _CHANNEL, _MESSAGE})  # to hand over all 1,091 that there are takes 0.3 ms a call
_ANSWER = f"{_START}assistant"
_HEADER_TOKENS = 3  # `<|start|>developer<|message|>`
_TOOLS_BEGIN, _TOOLS_END = "# Tools\n\n## functions\n\nnamespace functions {\n\n", "\n\n} // namespace functions"


class Opening(NamedTuple):
    """`<|start|>header<|message|>`, and the text of a system message: what is not tokenised by `Harmony` itself."""

    text: str  # the message in the library's JSON, of which an empty text stands for the one that follows
    tools: bool = False  # the system text names the channel of tools where there are some
    kind: str = "opening"


class CallOpening(NamedTuple):
    """The header of a call, as it was before version 0.0.10 of the library: so the model learnt it."""

    text: str  # the recipient
    kind: str = "call"


class Tools(NamedTuple):
    """The description of a request's tools, with which a developer's message ends. It begins with a word of its own,
    whatever stands before: so it is a segment.
    """

    text: str  # the tools in JSON
    kind: str = "tools"


class Harmony:
    """Writes chats. Calls from several threads don't meet."""

    def __init__(self, backend: Backend, encode: Encode, settings: EngineSettings) -> None:
        """`backend` is the model's tokenizer, `encode` its way with texts.

        Raises ValueError where the tokenizer is not Harmony's.
        """
        self._hides_tools = settings.exclude_tools_when_tool_choice_none
        self._least_effort = settings.disabled_thinking_effort or "low"  # Harmony knows no "none"
        self._library = library.load_harmony_encoding(library.HarmonyEncodingName.HARMONY_GPT_OSS)
        self._encode = encode
        self._plain = Backend.from_str(backend.to_str())
        self._plain.encode_special_tokens = True
        added = (token.content for token in backend.get_added_tokens_decoder().values())
        self._find_special = re.compile("|".join(map(re.escape, added))).search
        self._chunk_chars = CHUNK_CHARS if allows_chunks(self._plain) else None
        self.cuts: Mapping[Segment, Ids] = {
            text: as_ids(self._library.encode(text, allowed_special="all")) for text in (_END, _CALL, _ANSWER)
        }
        probes = [_PROBE, _PLAIN_PROBE]
        if self._ids(probes) != [self._library.encode(probe, disallowed_special=()) for probe in probes]:
            raise ValueError("tokenizer.json is not that of gpt-oss: it makes other ids than Harmony's own")

    def segments(self, chat: Chat) -> list[Segment]:
        """The chat as openings, texts and ends. Raises NoText."""
        if chat.multimodal:
            raise NoText("media")
        if chat.sent is not None and chat.sent.api is Api.RESPONSES:
            effort, instructions, tools, lines = response_lines(chat.sent.body)
        else:
            hidden = chat.tool_choice_none and self._hides_tools
            effort, instructions, tools, lines = chat_lines(chat, hidden, self._least_effort)
        segments: list[Segment] = [_system(effort, bool(tools)), _END]
        if instructions or tools:
            segments += self._developer(instructions, tools)
        for line in without_old_thoughts(lines):
            check_name(line.name)
            check_name(line.recipient)
            if line.role == "developer":
                segments += self._developer(line.texts[0], ())
            elif line.calls:
                segments += [CallOpening(str(line.recipient)), *self._texts(line.texts), _CALL]
            else:
                segments += [_opening(line), *self._texts(line.texts), _END]
        return [*segments, _ANSWER]

    def owns(self, segment: Segment) -> bool:
        """All but texts of completions."""
        return isinstance(segment, Opening | CallOpening | Literal | Tools)

    def tokenise(self, segments: Sequence[Segment]) -> dict[Segment, Ids]:
        """The ids of openings, texts and tools. Raises NoText."""
        texts = [segment for segment in segments if isinstance(segment, Literal | Tools)]
        ids = self._ids([text.text if isinstance(text, Literal) else self._described(text) for text in texts])
        found: dict[Segment, Ids] = {text: as_ids(each) for text, each in zip(texts, ids, strict=True)}
        for segment in segments:
            if isinstance(segment, Opening):
                found[segment] = as_ids(self._render(segment.text, segment.tools)[:-1])
            elif isinstance(segment, CallOpening):
                header = f"{_START}assistant to={segment.text}{_CHANNEL}commentary json{_MESSAGE}"
                allowed: Any = "all" if "<|" in segment.text else _OF_CALLS
                found[segment] = as_ids(self._library.encode(header, allowed_special=allowed, disallowed_special=()))
        return found

    def _developer(self, instructions: str | None, tools: Sequence[Mapping[str, Any]]) -> list[Segment]:
        segments: list[Segment] = [_opening(Line("developer", ()))]
        if instructions is not None:
            segments += self._texts([f"# Instructions\n\n{instructions}" + ("\n\n" if tools else "")])
        if tools:
            segments.append(Tools(json.dumps([_description(tool) for tool in tools])))
        return [*segments, _END]

    def _described(self, tools: Tools) -> str:
        """The text. The library is asked tool by tool: it would hold the process for all of them. Raises NoText."""
        try:
            described: list[dict[str, Any]] = json.loads(tools.text)
            check_tools(described)
            return _TOOLS_BEGIN + "\n\n".join(map(self._describe, described)) + _TOOLS_END
        except RecursionError as error:
            raise NoText("nested too deeply") from error

    def _describe(self, tool: Mapping[str, Any]) -> str:
        """Of one function. Raises NoText."""
        namespace = {"functions": {"name": "functions", "tools": [tool]}}
        message = {"role": "developer", "content": [{"type": "developer_content", "tools": namespace}]}
        text: str = self._library.decode(self._render(json.dumps(message), tools=True)[_HEADER_TOKENS:-1])
        return text.removeprefix(_TOOLS_BEGIN).removesuffix(_TOOLS_END)

    def _render(self, message: str, tools: bool) -> list[int]:
        options = library.RenderOptions(conversation_has_function_tools=tools)
        try:
            ids: list[int] = self._library.render(library.Message.from_dict(json.loads(message)), options)
        except Exception as error:  # the library raises its own and pydantic's
            raise NoText("refused by Harmony") from error
        return ids

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts in which no special token is recognised. Raises NoText."""
        usual = [text for text in texts if not self._find_special(text)]
        others = [text for text in texts if self._find_special(text)]
        try:
            found = dict(zip(usual, self._encode(usual), strict=True)) if usual else {}
            encodings = self._plain.encode_batch_fast(others, add_special_tokens=False) if others else ()
        except Exception as error:  # the library raises many, and none that it names
            raise NoText("not a text") from error
        found |= {text: encoding.ids for text, encoding in zip(others, encodings, strict=True)}
        return [found[text] for text in texts]

    def _texts(self, texts: Sequence[str]) -> list[Segment]:
        """Each text by itself: the engine joins no tokens over their borders."""
        size = self._chunk_chars
        for text in texts:
            if not text.isascii():
                check_unicode(text)
        return [Literal(piece) for text in texts if text for piece in (chunks(text, size) if size else [text])]


def _system(effort: str | None, tools: bool) -> Opening:
    """The system message, whole, with today's date: the engine's, as far as its clock is ours."""
    if effort not in (None, *_EFFORTS):
        raise NoText("unknown reasoning effort")
    content = library.SystemContent.new().with_conversation_start_date(datetime.now().strftime("%Y-%m-%d"))
    if effort is not None:
        content = content.with_reasoning_effort(_EFFORTS[effort])
    return Opening(json.dumps({"role": "system", "content": [content.to_dict()]}), tools)


def _opening(line: Line) -> Opening:
    known = {"name": line.name, "channel": line.channel, "recipient": line.recipient, "content_type": line.content_type}
    given = {name: value for name, value in known.items() if value is not None}
    return Opening(json.dumps({"role": line.role, "content": [{"type": "text", "text": ""}], **given}))


def _description(tool: Mapping[str, Any]) -> dict[str, Any]:
    known = {
        "name": tool.get("name"),
        "description": tool.get("description") or "",
        "parameters": tool.get("parameters"),
    }
    return {name: value for name, value in known.items() if value is not None}
