"""Templates are rendered as `transformers` does it, within bounds, and can do no harm."""

import json
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.tokens import template as template_module
from multipick_epp.tokens.content_format import content_format
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.template import ChatTemplate

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes "}]


def render(source: str, max_chars: int = 10_000, **variables: Any) -> str:
    return ChatTemplate(source).render({"messages": MESSAGES, **variables}, max_chars)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for m in messages %}\n  {{ m.role }}\n{% endfor %}", "  user\n  assistant\n"),
        ("a\n    {% if true %}\nb\n    {% endif %}\nc", "a\nb\nc"),
        ("{{ {'b': '<é>', 'a': [1, none]} | tojson }}", '{"b": "<é>", "a": [1, null]}'),
        ("{{ {'b': 1} | tojson(indent=2) }}", '{\n  "b": 1\n}'),
        ("{{ 'é' | tojson(ensure_ascii=true) }}", '"\\u00e9"'),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", '{"a":2,"b":1}'),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "02"),
        ("a{% generation %}b{% set x = 1 %}{% endgeneration %}{{ x is defined }}", "abFalse"),
        ("{{ strftime_now('%%') }}", "%"),
        ("{{ undefined_thing }}|{{ messages[0].nothing }}", "|"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
    ],
)
def test_templates_mean_what_transformers_makes_of_them(source: str, text: str) -> None:
    assert render(source) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('no') }}",
        "{{ messages[0].nothing.at_all }}",
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
        "{{ messages.append(1) }}",  # the sandbox is immutable
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{{ range(999999999) | list | length }}",
        "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
        "{% include '/etc/passwd' %}",
        "{{ messages.index | tojson }}",
    ],
)
def test_a_template_that_fails_refuses_the_chat(source: str) -> None:
    with pytest.raises(NoText, match="refused by the template"):
        render(source)


def test_a_text_grows_to_its_bound_and_no_further() -> None:
    source = "{% for i in range(1000) %}{{ 'x' * 100 }}{% endfor %}"
    assert len(render(source, max_chars=100_000)) == 100_000
    with pytest.raises(NoText, match="too long"):
        render(source, max_chars=99_999)


def test_json_with_an_indent_is_bounded_by_its_values_and_how_deep_they_are() -> None:
    deep: Any = [1] * 2_000
    for _ in range(300):
        deep = {"a": deep}
    assert len(render("{{ value | tojson }}", 100_000, value=deep)) == 300 * 7 + 2_000 * 3
    with pytest.raises(NoText, match="too long"):
        render("{{ value | tojson(indent=1) }}", 10**9, value=deep)
    assert len(render("{{ value | tojson(indent=1) }}", 10**6, value=[{"a": [1, 2]}] * 5_000)) > 10_000
    tools: Any = [1] * 20
    for _ in range(300):
        tools = {"a": tools}
    with pytest.raises(NoText, match="too long"):
        render("{% for tool in value %}{{ tool | tojson(indent=1) }}{% endfor %}", 10**9, value=[tools] * 20)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=30,
)


@given(JSON, st.integers(0, 5), st.booleans(), st.booleans())
@settings(deadline=None, derandomize=True)
def test_json_with_an_indent_is_as_python_writes_it(value: Any, indent: int, ascii_only: bool, in_order: bool) -> None:
    written = render(
        "{{ value | tojson(ensure_ascii=a, indent=i, sort_keys=s) }}", value=value, i=indent, a=ascii_only, s=in_order
    )
    assert written == json.dumps(value, ensure_ascii=ascii_only, indent=indent, sort_keys=in_order)


def test_json_with_an_indent_is_not_written_value_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_python(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(json.encoder, "_make_iterencode", by_python)
    assert render("{{ value | tojson(indent=2) }}", value={"a": [1, {}]}) == '{\n  "a": [\n    1,\n    {}\n  ]\n}'


def test_a_slow_template_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_module, "MAX_RENDER_S", 0.0)
    with pytest.raises(NoText, match="too slow"):
        render("{% for i in range(90000) %}{% for j in range(90000) %}x{% endfor %}{% endfor %}", max_chars=10**12)


@pytest.mark.parametrize("source", ["{% for m in messages %}", "{{ a b }}", "{% unknown %}", "{{ 1 | nofilter }}"])
def test_what_is_no_template_is_said_when_it_is_loaded(source: str) -> None:
    with pytest.raises(ValueError, match="line 1 of the chat template"):
        ChatTemplate(source)


ALL = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
TRIMMED = "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}"


@pytest.mark.parametrize(
    ("source", "last", "text"),
    [
        (ALL, "yes ", "[hi][yes "),
        (TRIMMED, "yes ", "[hi][yes"),
        (ALL, "yes", "[hi][yes"),
        (ALL, "", "[hi]["),
    ],
)
def test_a_message_to_continue_stays_open(source: str, last: str, text: str) -> None:
    messages = [MESSAGES[0], {"role": "assistant", "content": last}]
    assert ChatTemplate(source).render_open(messages, {}, 1_000) == text
    assert messages[1]["content"] == last


def test_the_last_text_of_a_message_with_parts_stays_open() -> None:
    source = "{% for m in messages %}{% for part in m.content %}({{ part.text }}){% endfor %};{% endfor %}"
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, {"type": "image"}]
    assert ChatTemplate(source).render_open([{"role": "assistant", "content": parts}], {}, 1_000) == "(a)(b"
    assert parts[1] == {"type": "text", "text": "b"}


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        ("{% for m in messages %}{{ m.content[:1] }}{% endfor %}", MESSAGES),  # drops the end
        ("{{ messages[0].text }}", MESSAGES),  # takes no content
        (ALL, [{"role": "assistant", "content": None}]),
        (ALL, [{"role": "assistant", "content": [{"type": "image"}]}]),
    ],
)
def test_a_message_that_can_not_be_continued_refuses_the_chat(source: str, messages: list[dict[str, Any]]) -> None:
    with pytest.raises(NoText, match="no message to continue"):
        ChatTemplate(source).render_open(messages, {}, 1_000)


@pytest.mark.parametrize(
    ("source", "wants"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "string"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "string"),
        ("no messages", "string"),
        ("{% for m in messages %}{% for c in m.content %}{% endfor %}{% endfor %}", "openai"),
        ("{% for m in messages %}{% for c in m['content'] %}{% endfor %}{% endfor %}", "openai"),
        ("{% for m in messages[1:] %}{% for c in m['content'] | list %}{% endfor %}{% endfor %}", "openai"),
        ("{% set all = messages %}{% for m in all %}{% for c in m.content %}{% endfor %}{% endfor %}", "openai"),
        (
            "{% set a = messages %}{% set b = a[1:] %}{% for m in b %}{% for c in m.content %}{% endfor %}{% endfor %}",
            "openai",
        ),
        ("{% set a = other %}{% for m in a %}{% for c in m.content %}{% endfor %}{% endfor %}", "string"),
        (
            "{% set content = messages[0].content %}{% for c in content %}{% endfor %}",
            "openai",
        ),
        ("{% for m in messages %}{% for c in m.tool_calls %}{% endfor %}{% endfor %}", "string"),
        (
            "{% macro show(parts) %}{% for p in parts %}{% endfor %}{% endmacro %}"
            "{% for m in messages %}{{ show(m.content) }}{% endfor %}",
            "openai",
        ),
        (
            "{% macro show(parts) %}{% for p in parts %}{% endfor %}{% endmacro %}"
            "{% for m in messages %}{{ show(parts=m.content) }}{% endfor %}",
            "openai",
        ),
        (
            "{% macro show(content) %}{% for p in content %}{% endfor %}{% endmacro %}"
            "{% for m in messages %}{{ show(m.tool_calls) }}{{ m.content }}{% endfor %}",
            "string",
        ),
        ("{% for m in messages if m.content is string %}{{ m.content }}{% endfor %}", "string"),
    ],
)
def test_the_content_format_is_seen_in_the_template(source: str, wants: str) -> None:
    assert content_format(jinja2.Environment().parse(source)) == wants


KEYS = st.text(max_size=4) | st.integers() | st.booleans() | st.none()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(VALUES | st.sampled_from([[1], [1.0], [True], [0], [-0.0], [False], {1: 2}, {"1": 2}, {True: 2}, ["1"]]))
@settings(deadline=None, derandomize=True, max_examples=400)
def test_json_is_what_python_writes_whatever_was_written_before(value: Any) -> None:
    assert render("{{ value | tojson }}", value=value) == json.dumps(value, ensure_ascii=False)


def test_what_json_has_no_form_for_is_refused_and_what_is_long_or_deep_is_written() -> None:
    for value in (jinja2.Undefined(), [jinja2.Undefined()], {"a": b"b"}, range(3)):
        with pytest.raises(NoText):
            render("{{ value | tojson }}", value=value)
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    for long in (["x" * 20_000], [2**200], ["\ud800"], deep):
        assert render("{{ long | tojson }}", 100_000, long=long) == json.dumps(long, ensure_ascii=False)
