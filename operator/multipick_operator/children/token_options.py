"""Options of vLLM's command line that change token ids -> the picker's fields of the same names.

A picker that doesn't know one of them predicts hits that never come. So what is set and can't be followed is named, and
the picker then leaves all prompts to the engines. Read as vLLM 0.32 does: `-` or `_`, `=` or the next argument, a name
cut short, JSON in pieces (`--default-chat-template-kwargs.enable_thinking false`); the last one wins.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

_TEXT = {
    "--chat-template": "chat_template",
    "--chat-template-content-format": "chat_template_content_format",
    "--tokenizer-mode": "tokenizer_mode",
    "--anthropic-disabled-thinking-effort": "anthropic_disabled_thinking_effort",
}
_CHOICES = {
    "chat_template_content_format": ("auto", "string", "openai"),
    "tokenizer_mode": ("auto", "hf", "mistral"),
    "anthropic_disabled_thinking_effort": ("auto", "none", "low", "medium", "high", "xhigh", "max"),
}
_SWITCH = {
    "--exclude-tools-when-tool-choice-none": "exclude_tools_when_tool_choice_none",
    "--trust-request-chat-template": "trust_request_chat_template",
}
_JSON = "--default-chat-template-kwargs"
_UNKNOWN = (
    "--config", "--config-format", "--enable-prompt-embeds", "--hf-config-path", "--hf-overrides",
    "--skip-tokenizer-init", "--tokenizer", "--tokenizer-revision",
)  # fmt: skip
"""Whose ids nobody can tell from the model's folder; the first may hold any other."""

_OF_SGLANG = (
    "--chat-template", "--completion-template", "--config", "--hf-chat-template-name", "--json-model-override-args",
    "--skip-tokenizer-init", "--tokenizer-mode", "--tokenizer-path",
)  # fmt: skip


class TokenOptions(NamedTuple):
    """What an engine's arguments mean to a picker."""

    fields: Mapping[str, Any]  # of the picker's `pool`
    unread: Sequence[str]  # options that are set and that it can't follow


def of_vllm(args: Sequence[str], model: str, template_at: Callable[[str], str | None]) -> TokenOptions:
    """`model` is what the engine is told to serve; `template_at(path)`, where a picker finds the engine's file; None
    where it does not.
    """
    fields: dict[str, Any] = {}
    unread: dict[str, None] = {}
    left = [*args]
    while left:
        given, equals, value = left.pop(0).partition("=")
        name, _, key = given.partition(".")
        option = _option(name)
        if option is None:
            continue
        if option in _SWITCH:
            fields[_SWITCH[option]] = not name.startswith("--no-")
        elif option in _UNKNOWN:
            own = option == "--tokenizer" and model == (value if equals else left[0] if left else "")
            unread |= {} if own else {option: None}
        else:
            text = value if equals else left.pop(0) if left else ""
            read = _json(fields, key, text) if option == _JSON else _text(_TEXT[option], text, template_at)
            unread.pop(option, None)
            if read is None:
                unread[option] = None
            else:
                fields |= read
    return TokenOptions(fields, [*unread])


def of_sglang(args: Sequence[str]) -> TokenOptions:
    """Of these none can be followed: the picker's fields are vLLM's."""
    names = {argument.partition("=")[0].replace("_", "-") for argument in args}
    return TokenOptions({}, [option for option in _OF_SGLANG if option in names])


def _option(name: str) -> str | None:
    """The option that an argument sets, if it is one of these; it may be cut short."""
    if not name.startswith("--"):
        return None
    wanted = name.replace("_", "-")
    switched = wanted.replace("--no-", "--", 1)
    known = (*_TEXT, *_SWITCH, _JSON, *_UNKNOWN)
    if wanted in known or switched in _SWITCH:
        return wanted if wanted in known else switched
    begun = [option for option in known if option.startswith(wanted)]
    return begun[0] if len(begun) == 1 and len(wanted) > len("--") else None


def _text(field: str, value: str, template_at: Callable[[str], str | None]) -> Mapping[str, Any] | None:
    if field in _CHOICES:
        return {field: value} if value in _CHOICES[field] else None
    if any(sign in value for sign in "{}\n"):  # the template itself
        return {field: value}
    found = template_at(value)
    return None if found is None else {field: found}


def _json(fields: Mapping[str, Any], key: str, value: str) -> Mapping[str, Any] | None:
    """The variables with those that were given before, of which pieces are made one."""
    field = _JSON.removeprefix("--").replace("-", "_")
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        read = value
    if not key:
        return {field: read} if isinstance(read, dict) else None
    if key.endswith("+"):
        return None
    for part in reversed(key.split(".")[1:]):
        read = {part: read}
    before = fields.get(field, {})
    first = key.split(".")[0]
    deeper = isinstance(read, dict) and isinstance(before.get(first), dict)
    return {field: before | {first: before[first] | read if deeper else read}}
