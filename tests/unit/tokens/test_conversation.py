"""What is a role and a text takes a short way through parsing and rendering: it ends where the long one does."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.requests import parse
from multipick_epp.requests.prompt import Chat, Prompt
from multipick_epp.tokens.conversation import MEDIA_MARK, conversation
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.settings import ContentFormat
from multipick_epp.tokens.template import ChatTemplate
from plain_jinja import plain_environment

CHAT = "/v1/chat/completions"
RECORDED = Path(__file__).parent / "recorded"

TEXTS = st.text(max_size=12) | st.sampled_from(
    ("", "x-anthropic-billing-header: a", "x-anthropic-billing-header: a\nrest", MEDIA_MARK, "<|im_end|>", "{{ 1 }}")
)
ROLES = st.sampled_from(("system", "user", "assistant", "developer", "tool", "robot", ""))
PARTS = st.lists(TEXTS | st.builds(lambda text: {"type": "text", "text": text}, TEXTS), max_size=3)
OTHERS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.none() | TEXTS,
        "reasoning": st.none() | TEXTS,
        "tool_call_id": st.none() | TEXTS,
        "unknown": st.none(),
    },
)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """Of any role; mostly with a text, and nothing else."""
    content = draw(st.fixed_dictionaries({}, optional={"content": st.none() | TEXTS | TEXTS | PARTS}))
    fields = [("role", draw(ROLES)), *content.items(), *draw(st.just({}) | OTHERS).items()]
    return dict(draw(st.permutations(fields)))


CHATS = st.lists(messages(), min_size=1, max_size=6)


def the_long_way(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A field that is as good as none."""
    return [message | {"task": None} for message in sent]


def read(sent: list[dict[str, Any]]) -> Any:
    """The messages as parsed; else why not."""
    found = parse(CHAT, {}, json.dumps({"messages": sent}).encode("utf-8", "surrogatepass"))
    if not isinstance(found, Prompt):
        return found
    assert isinstance(found.source, Chat)
    return found.source.messages


def written(sent: Any, content_format: ContentFormat, knows_developers: bool) -> Any:
    """Field by field in order, since templates may print a message; else why not."""
    try:
        return [[*message.items()] for message in conversation(sent, content_format, knows_developers)]
    except NoText as error:
        return error.reason


@given(CHATS, st.sampled_from(("string", "openai")), st.booleans())
@settings(deadline=None, derandomize=True, max_examples=400)
def test_a_template_gets_the_same_by_both_ways(
    sent: list[dict[str, Any]], content_format: ContentFormat, knows_developers: bool
) -> None:
    short, long = read(sent), read(the_long_way(sent))
    if not isinstance(short, list):
        assert short == long
        return
    assert [message | {"task": None} for message in short] == long
    assert written(short, content_format, knows_developers) == written(long, content_format, knows_developers)


SOURCES = {path.stem: path.read_text() for path in RECORDED.glob("*.jinja")} | {
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "macro": "{% macro say(m) %}[{{ m.role }}]{{ caller() if caller else '' }}{% endmacro %}"
    "{% for m in messages %}{{ say(m) }}{% call say(m) %}{{ m.content }}{% endcall %}{% endfor %}",
    "block": "{% block a %}{% for m in messages %}{{ loop.index }}{{ m.name }}{% endfor %}{% endblock %}{{ self.a() }}",
    "fields": "{% for m in messages %}"
    "{% if m.name %}{{ m.name.strip() }}{% elif m['reasoning'] is defined and m.content %}{{ m.get('unknown', 1) }}"
    "{{ m.content.split('|') }}{% endif %}{{ m['role'].startswith('s') }}{{ m.items() }}"
    "{% endfor %}",
    "scope": "{% set x = 1 %}{% for m in messages %}{% set x = 2 %}{% endfor %}{{ x }}{{ range is callable }}{{ y }}",
}


PLAIN = plain_environment()


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@given(CHATS, st.dictionaries(st.sampled_from(("y", "range", "namespace", "self", "context", "loop")), TEXTS))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_a_text_is_what_jinja2_itself_renders(source: str, sent: list[dict[str, Any]], given: dict[str, str]) -> None:
    variables = {"tools": None, "add_generation_prompt": True, **given, "messages": sent}
    template = ChatTemplate(source)
    for _ in range(2):  # nothing stays behind from one chat to the next
        try:
            expected = PLAIN.from_string(source).render(variables)
        except Exception:  # any, since the template is a program
            with pytest.raises(NoText):
                template.render(variables, 1_000_000)
        else:
            assert template.render(variables, 1_000_000) == expected
