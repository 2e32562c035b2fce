"""Whatever a template reads, it gets what jinja2's own sandbox gives it."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from jinja2.exceptions import TemplateRuntimeError
from jinja2.ext import loopcontrols
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


FIGURES = (
    *("first", "last", "index", "index0", "revindex", "revindex0", "length", "depth", "depth0"),
    *("previtem", "nextitem", "x"),
)


@pytest.mark.parametrize("name", FIGURES)
def test_loops_within_loops_tell_their_own_figures(name: str) -> None:
    inner = f"{{% for part in row.parts %}}{{{{ loop.{name} }}}};{{% endfor %}}"
    source = f"{{% for row in rows %}}{inner}{{{{ loop.{name} }}}}|{{% endfor %}}"
    rows = [{"parts": "ab"}, {"parts": []}, {"parts": "abc"}]
    ours, theirs = (environment.from_string(source) for environment in (Sandbox(), PLAIN()))
    assert ours.render(rows=rows) == theirs.render(rows=rows)
    assert ours.render(rows=iter(rows)) == theirs.render(rows=iter(rows))


TURNS = (
    "{{ loop.index }}{{ a }};",
    "{% if loop.last %}{{ loop.length }}{{ loop.revindex }}{{ a }}{% endif %}",
    "{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{{ loop.previtem }}",
    "{{ loop.previtem.role }}{{ loop.nextitem.role is defined }}",
    "{% if loop.nextitem and loop.nextitem.role == 'b' %}{{ loop.nextitem.role.upper() }}{% endif %}",
    "{{ loop['index'] }}{{ loop.index }}",
    "{{ loop.cycle('p', 'q') }}{{ loop.changed(a) }}{{ loop.last }}",
    "{% set n = loop %}{{ n.index }}",
    "{{ loop.index }}{% if loop.index == 2 %}{% break %}{% endif %}{{ a }}",
    "{% if loop.first %}{% continue %}{% endif %}{{ loop.index0 }}",
    "{{ loop.index }}{% else %}none",
    "{% for b in x if loop.index > 1 %}{{ loop.index }}{% else %}-{% endfor %}{{ loop.last }}",
    "{% for b in x[loop.index0:] %}{{ loop.first }}{{ loop.revindex0 }}{% endfor %}{{ loop.last }}",
    "{% for b in [a, a] %}{% for c in [b] %}{{ loop.last }}{% endfor %}{{ loop.last }}{% endfor %}",
    "{% macro m() %}{{ loop.index }}{% endmacro %}{{ m() }}{{ loop.last }}",
    "{{ tell(loop.last) }}{{ loop.previtem() }}",
    "{% if loop.first %}{% set c = a %}{% endif %}{{ c }}{{ c is defined }}",
    "{{ given }}{% set given = a %}{{ given }}{{ loop.last }}",
    "{% set t %}{{ loop.index }}{{ a }}{% endset %}{{ t }}{% filter upper %}{{ loop.last }}{% endfilter %}",
)
LOOPS = (
    *(f"{{% for a in x %}}{turn}{{% endfor %}}{{{{ a is defined }}}}{{{{ loop is defined }}}}" for turn in TURNS),
    *(f"{{% for a in x|map('upper') %}}{{% if b %}}{{% break %}}{{% endif %}}{turn}{{% endfor %}}" for turn in TURNS),
    *(f"{{% for a in x|map('upper') %}}{turn}{{% set b = 1 %}}{{% endfor %}}{{{{ b }}}}" for turn in TURNS),
    "{% for a in x|map('upper') %}{{ loop.index }}{{ loop.first }}{% break %}{% endfor %}",
    "{% for a in x|map('upper') %}{{ loop.last }}{{ a }}{% if loop.index == 2 %}{% break %}{% endif %}{% endfor %}",
    "{% for a in x if a %}{{ loop.index }}/{{ loop.length }}{% endfor %}",
    "{% macro m(y) %}{% for a in y %}{% set z = a %}{{ loop.last }}{{ z }}{% endfor %}{% endmacro %}{{ m(x) + m(x) }}",
    "{% for a, b in x %}{{ loop.index }}{{ a }}{{ b }}{% endfor %}",
    "{% set c = 1 %}{% for a in x %}{{ c }}{% set c = loop.index %}{{ c }}{% endfor %}{{ c }}",
    "{% for a in x recursive %}{{ loop.depth }}{{ loop.index }}{% endfor %}",
    "{% for loop in x %}{{ loop }}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for a in x|select %}{% set ns.n = ns.n + loop.index %}{% endfor %}{{ ns.n }}",
)
OVER: Mapping[str, Callable[[], object]] = {
    "a list": lambda: ["a", "b", "c"],
    "an empty list": list,
    "one item": lambda: ["a"],
    "messages": lambda: [{"role": "a"}, {"role": "b"}, {}],
    "pairs": lambda: [("a", 1), ("b", 2)],
    "odd items": lambda: ["a", None, 0, "b"],
    "a list of its own kind": lambda: type("Items", (list,), {})("ab"),
    "a tuple": lambda: ("a", "b"),
    "a text": lambda: "abc",
    "a dict": lambda: {"a": 1, "b": 2},
    "an iterator": lambda: iter(["a", "b", "c"]),
    "a number": lambda: 1,
    "nothing": lambda: None,
    "an undefined value": lambda: Undefined(name="y"),
}


@pytest.mark.parametrize("kind", OVER)
def test_loops_of_every_form_do_what_they_do_in_jinja2(kind: str) -> None:
    def seen(environment_of: type[ImmutableSandboxedEnvironment], source: str) -> list[object]:
        told: list[object] = []
        try:
            template = environment_of(extensions=[loopcontrols]).from_string(source)
            told.append(template.render(x=OVER[kind](), given="given", tell=told.append))
        except Exception as error:  # any, since the template is a program
            told.append((type(error), text_of(error)))
        return told

    for source in LOOPS:
        assert seen(Sandbox, source) == seen(PLAIN, source), source


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
        "{% for each in [m, m] %}{% if loop.last %}{{ loop.previtem.__class__.__mro__ }}{% endif %}{% endfor %}",
        "{% for each in [m, m] %}{% if loop.first %}{{ loop.nextitem.clear() }}{% endif %}{% endfor %}",
    ],
)
def test_what_the_sandbox_forbids_is_forbidden(source: str) -> None:
    message = {"role": "user"}
    for environment in (ImmutableSandboxedEnvironment(), Sandbox()):
        with pytest.raises(Exception, match="unsafe"):
            environment.from_string(source).render(m=message)
    assert message == {"role": "user"}
