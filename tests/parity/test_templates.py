"""The templates of many models, by our compiled code and by jinja2's own: the same text, or both refuse."""

import json

import pytest
from multipick_epp.requests import parse
from multipick_epp.requests.prompt import Chat, Prompt
from multipick_epp.tokens import template
from multipick_epp.tokens.chat_text import ChatText
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.settings import EngineSettings
from plain_jinja import plain_environment

from .cases import cases
from .models import Unreachable, templates
from .recorded import standing_still

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def chats() -> list[Chat]:
    parsed = [parse(case.path, {}, json.dumps({"model": "m", **case.body}).encode()) for case in cases()]
    return [each.source for each in parsed if isinstance(each, Prompt) and isinstance(each.source, Chat)]


def rendered(texts: ChatText, chat: Chat) -> str:
    try:
        return texts.render(chat)
    except NoText as none:
        return f"none: {none.reason}: {none.__cause__!r}"


@pytest.mark.timeout(300)
def test_a_template_writes_what_jinja2_makes_it_write(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        sources = templates()
    except Unreachable as away:
        pytest.skip(str(away))
    monkeypatch.setattr(template, "datetime", standing_still("2026-01-02T03:04:05"))
    plain, asked, written = plain_environment(), chats()[::3], 0
    for name, source in sources.items():
        ours = ChatText({"default": source}, SPECIAL, EngineSettings(), 1_000_000)
        with monkeypatch.context() as patch:
            patch.setattr(template, "_environment", lambda: plain)
            theirs = ChatText({"default": source}, SPECIAL, EngineSettings(), 1_000_000)
        for chat in asked:
            text = rendered(theirs, chat)
            assert rendered(ours, chat) == text, name
            written += not text.startswith("none: ")
    assert written >= 30 * len(sources)
