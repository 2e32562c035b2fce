"""Whatever a template reads, it gets what jinja2's own sandbox gives it."""

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from multipick_epp.tokens.sandbox import Fields, Sandbox

PLAIN = ImmutableSandboxedEnvironment
NAMES = ("role", "content", "nothing", "items", "format", "_own", "__class__", "mro", "gi_frame", "first", "previtem")


class Field(dict[str, str]):
    """A dict with attributes of its own."""

    role = "attribute"


def loop() -> LoopContext:
    """In its second turn, behind a value that has an attribute of its own."""
    context = LoopContext([Namespace(role="user"), {"role": "assistant"}, "x"], Undefined)
    next(context)
    next(context)
    return context


def generator() -> Iterator[int]:
    yield 1


OBJECTS: Mapping[str, Any] = {
    "a message": {"role": "user", "content": None, "items": "field", "__class__": "field", "format": 1},
    "no message": {},
    "a dict of undefined values": dict.fromkeys(NAMES, Undefined(name="y")),
    "a dict of another class": Field(role="item", content="item"),
    "an ordered dict": OrderedDict(role="user"),
    "a list": ["role"],
    "a set": {"role"},
    "a deque": deque(["role"]),
    "a text": "role",
    "a number": 1,
    "nothing": None,
    "a loop": loop(),
    "a namespace": Namespace(role="user", content=[1], items=len, _own=1, first=None, format="{}".format),
    "an undefined value": Undefined(name="x"),
    "a class": dict,
    "a function": loop,
    "a method": "x".join,
    "a generator": generator(),
}


def text_of(error: Exception) -> str:
    """What it says; where it names the class of a namespace, jinja2's."""
    return str(error).replace(f"{Fields.__module__}.Fields", "jinja2.utils.Namespace").replace("Fields", "Namespace")


def told(value: object) -> object:
    """What a template could tell of a value."""
    if isinstance(value, Undefined):
        with pytest.raises(Exception) as raised:  # noqa: PT011  (which one is what is compared)
            value._fail_with_undefined_error()
        return type(raised.value), text_of(raised.value)
    if callable(value) and (name := getattr(value, "__name__", "")) in {"format", "format_map"}:
        return type(value), name  # stands in for the text's own method
    return value


def read(environment: ImmutableSandboxedEnvironment, kept: object, name: str) -> object:
    try:
        return told(environment.getattr(kept, name))
    except TemplateRuntimeError as error:  # of an undefined value
        return type(error), text_of(error)


@pytest.mark.parametrize("kind", OBJECTS)
def test_every_attribute_is_what_the_sandbox_says(kind: str) -> None:
    kept = OBJECTS[kind]
    for name in {*NAMES, *dir(type(kept))}:
        assert read(Sandbox(), kept, name) == read(ImmutableSandboxedEnvironment(), kept, name), name


READ = (
    "{{ tell(x.NAME) }}",
    "{{ tell([x][0].NAME) }}",
    "{% set loop = x %}{{ tell(loop.NAME) }}",
    "{{ tell(x['NAME']) }}",
    "{{ tell(x.NAME is defined) }}",
    "{{ tell(x['NAME'] is defined) }}",
    "{% if x.NAME %}{{ tell(1) }}{% elif not x['NAME'] %}{{ tell(2) }}{% endif %}",
    "{% if not (x.NAME or x.content) and x['NAME'] is not defined %}{{ tell(1) }}{% endif %}",
    "{% set ns = namespace(NAME=x) %}{{ tell(ns.NAME) }}{{ tell(ns['NAME']) }}{{ tell(ns.x) }}",
    "{% set ns = namespace(y=1) %}{% set ns.NAME = x %}{{ tell(ns.NAME) }}{{ tell(ns.NAME is defined) }}",
    "{% set ns = namespace(y=1) %}{% set ns = x %}{{ tell(ns.NAME) }}",
    "{% set ns = namespace(x=x) %}{{ tell(ns.x.NAME) }}{{ tell(ns|string|length) }}",
)
CALLED = (
    "{{ tell(x.NAME()) }}",
    "{{ tell(x.NAME('role')) }}",
    "{{ tell(x.NAME('role', 1)) }}",
    "{% for each in [x] %}{{ tell(each.NAME('r')) }}{% endfor %}",
    "{% call x.NAME('role') %}{% endcall %}{{ tell(1) }}",
    "{% macro m(x) %}{{ tell(x.NAME('role')) }}{% endmacro %}{{ m(x) }}{{ m(x=x) }}{% call m(x) %}{% endcall %}",
)


def compiled(environment: ImmutableSandboxedEnvironment, source: str, kept: object) -> list[object]:
    seen: list[object] = []
    try:
        environment.from_string(source).render(x=kept, tell=lambda value: seen.append(told(value)))
    except Exception as error:  # any, since the template is a program
        seen.append((type(error), text_of(error)))
    return seen


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_compiled_template_reads_what_the_sandbox_says(kind: str) -> None:
    for name in (*NAMES, "keys", "append", "upper", "index", "last", "__init__"):
        for source in (form.replace("NAME", name) for form in READ):
            ours, theirs = (compiled(kind_of(), source, OBJECTS[kind]) for kind_of in (Sandbox, PLAIN))
            assert ours == theirs, source


METHODS = ("get", "items", "keys", "values", "endswith", "lower", "rsplit", "split", "startswith", "strip", "upper")


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_compiled_template_calls_what_the_sandbox_would(kind: str) -> None:
    for name in (*METHODS, "format", "pop", "update", "mro", "_own", "__class__"):
        for source in (form.replace("NAME", name) for form in CALLED):
            ours, theirs = (compiled(kind_of(), source, OBJECTS[kind]) for kind_of in (Sandbox, PLAIN))
            assert [*map(str, ours)] == [*map(str, theirs)], source


FIGURES = ("first", "last", "index", "index0", "revindex", "revindex0", "length", "depth", "depth0", "previtem", "x")


@pytest.mark.parametrize("name", FIGURES)
def test_loops_within_loops_tell_their_own_figures(name: str) -> None:
    inner = f"{{% for part in row.parts %}}{{{{ loop.{name} }}}};{{% endfor %}}"
    source = f"{{% for row in rows %}}{inner}{{{{ loop.{name} }}}}|{{% endfor %}}"
    rows = [{"parts": "ab"}, {"parts": []}, {"parts": "abc"}]
    ours, theirs = (environment.from_string(source) for environment in (Sandbox(), PLAIN()))
    assert ours.render(rows=rows) == theirs.render(rows=rows)
    assert ours.render(rows=iter(rows)) == theirs.render(rows=iter(rows))


@pytest.mark.parametrize(
    "source",
    [
        "{{ m.update({'role': 'x'}) }}",
        "{{ m.__class__.__mro__ }}",
        "{{ m.role.__class__.__mro__ }}",
        "{{ '{0.__class__.__mro__}'.format(m) }}",
        "{% set ns = namespace(f='{0.__class__.__mro__}'.format) %}{{ ns.f(m) }}",
        "{% set ns = namespace(m=m) %}{{ ns.m.clear() }}",
        "{% for each in [m] %}{{ loop.__class__.__mro__ }}{% endfor %}",
        "{% for each in [m] %}{{ loop._iterable.append(1) }}{% endfor %}",
    ],
)
def test_what_the_sandbox_forbids_is_forbidden(source: str) -> None:
    message = {"role": "user"}
    for environment in (ImmutableSandboxedEnvironment(), Sandbox()):
        with pytest.raises(Exception, match="unsafe"):
            environment.from_string(source).render(m=message)
    assert message == {"role": "user"}
