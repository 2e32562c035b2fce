"""One chat template: compiled as Hugging Face's `transformers` does it, rendered within bounds.

Templates come with the model and are the operator's choice; what they are rendered with is the client's. A template
that came in a request is never rendered here.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from itertools import chain, islice
from typing import Any, NoReturn

import jinja2
import msgspec
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from multipick_epp.tokens.content_format import content_format
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.sandbox import Sandbox

_CONTINUE = "CONTINUE_FINAL_MESSAGE_TAG "
"""Marks the end of the last message, to find it in the text (the tag of `transformers`, so that trimming is alike)."""

MAX_RENDER_S = 1.0
"""A template is stopped after this time, where it writes its text piece by piece, as all known ones do."""

_PIECES_A_CHECK = 200

_KEPT_JSON = 2_048
_KEPT_JSON_BYTES = 8_000
"""What is kept of what templates wrote as JSON: so many values, each of so many bytes at most; 32 MB at worst."""

MAX_INDENTED = 200_000
"""Values of a chat whose template writes JSON with an indent, each counted by its depth: as many indents stand before
it. So many are written in some 5 ms, and in 50 by Python's own encoder, which hands each through all levels."""

_HOLDERS = frozenset({dict, list})


class _Generation(Extension):
    """`{% generation %}` marks the model's own words for training; here it only holds them."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        """A call block, as in `transformers`: variables set inside stay inside."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class ChatTemplate:
    """A template ready to render."""

    def __init__(self, source: str) -> None:
        """Raises ValueError for what is no template."""
        environment = _environment()
        self.source = source
        try:
            self._template = environment.from_string(source)
            self._template.globals = {**self._template.globals}  # jinja2's chain of them is slow, and none changes
            self.content_format = content_format(environment.parse(source))
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"line {error.lineno} of the chat template: {error.message}") from error
        self._indents = "indent" in source
        self.knows_developers = '"developer"' in source or "'developer'" in source

    def insists_on_system_first(self) -> bool:
        """Whether the engine moves later system messages of an Anthropic request to the front.

        It tries such a chat in a bare environment, without the helpers of `transformers`; so does this.
        """
        roles = ("system", "user", "system", "user")
        messages = [{"role": role, "content": "t"} for role in roles]
        bare = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        try:
            bare.from_string(self.source).render(messages=messages, add_generation_prompt=False)
        except Exception:  # any, since the template is a program
            return True
        return False

    def render(self, variables: dict[str, Any], max_chars: int) -> str:
        """The text of a chat. Raises NoText, which stands for the engine's refusal too."""
        deadline = time.monotonic() + MAX_RENDER_S
        texts: list[str] = []
        size = 0
        if self._indents:
            _check_indented(variables.values())
        try:
            stream = self._template.root_render_func(self._template.new_context(variables))
            while pieces := [*islice(stream, _PIECES_A_CHECK)]:
                text = "".join(pieces)
                size += len(text)
                if size > max_chars:
                    raise NoText("too long")
                if time.monotonic() > deadline:
                    raise NoText("template too slow")
                texts.append(text)
        except NoText:
            raise
        except Exception as error:  # any, since the template is a program that runs on the client's values
            raise NoText("refused by the template") from error
        return "".join(texts)

    def render_open(self, messages: Sequence[dict[str, Any]], variables: Mapping[str, Any], max_chars: int) -> str:
        """The text of a chat up to the end of its last message, which the model shall go on with.

        Raises NoText.
        """
        if "content" not in self.source:
            raise NoText("no message to continue")
        tagged, final = _tag_last(messages)
        text = self.render({**variables, "messages": tagged}, max_chars)
        at = text.rfind(_CONTINUE.strip())
        if at < 0 or final.strip() not in text:
            raise NoText("no message to continue")
        # Without the space that ends the tag, the template has trimmed the message: then so is the prompt.
        return text[:at] if text.startswith(_CONTINUE, at) else text[:at].rstrip()


def _tag_last(messages: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """The messages with the tag at the end of the last one's text, and that text. Raises NoText."""
    *others, last = messages
    content = last.get("content")
    if isinstance(content, str):
        return [*others, {**last, "content": content + _CONTINUE}], content
    parts = list(content or ())
    for index in reversed(range(len(parts))):
        if "text" in parts[index]:
            text = str(parts[index]["text"])
            parts[index] = {**parts[index], "text": text + _CONTINUE}
            return [*others, {**last, "content": parts}], text
    raise NoText("no message to continue")


def _environment() -> Sandbox:
    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters["tojson"] = _tojson
    helpers: dict[str, Callable[..., Any]] = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    environment.globals.update(helpers)
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As in `transformers`: jinja2's own filter escapes HTML."""
    if indent is None and separators is None and not (ensure_ascii or sort_keys) and isinstance(value, dict | list):
        with suppress(Exception):  # any: then it is written, or refused, below
            packed = msgspec.msgpack.encode(value)
            if len(packed) <= _KEPT_JSON_BYTES:
                return _json_of(packed)
    if isinstance(indent, int) and indent > 0 and separators is None:
        plain = json.dumps(value, ensure_ascii=ensure_ascii, sort_keys=sort_keys)
        with suppress(Exception):  # any, as of numbers that JSON lacks: those are written below
            return msgspec.json.format(plain, indent=indent)  # as Python's encoder, in a tenth of the time
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _check_indented(values: Iterable[Any]) -> None:
    """Raises NoText where there is too much in them to be written, each once."""
    left, depth, work = [*values], 0, 0
    while left:  # one level after the other
        depth += 1
        work += depth * len(left)
        if work > MAX_INDENTED:
            raise NoText("too long")
        inner = [each.values() if isinstance(each, dict) else each for each in left if type(each) in _HOLDERS]
        left = [*chain.from_iterable(inner)]


@lru_cache(maxsize=_KEPT_JSON)
def _json_of(packed: bytes) -> str:
    """The JSON of a value in MessagePack: requests bring the same tools and calls again and again, and packing takes a
    tenth of the time. No two values that a request or a template can hold are packed alike, but for a tuple and a list,
    which are the same in JSON.
    """
    return json.dumps(msgspec.msgpack.decode(packed), ensure_ascii=False)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    """The engine's local time, as far as ours is the same; models use it for the day."""
    return datetime.now().strftime(pattern)
