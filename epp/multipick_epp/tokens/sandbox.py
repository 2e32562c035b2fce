"""Where chat templates run: jinja2's immutable sandbox, as in `transformers`, but quick at what templates read most.

The sandbox looks at every attribute that a template reads, which takes one to four microseconds, and is most of the
rendering of a long chat. Nearly all that is read are fields of messages, figures of the loop over them and values in a
namespace. Of these it is known beforehand what the sandbox says, so they are read as they are, the first two by the
compiled template itself (a fifth of Qwen3's time for a chat of tool calls); about all else it is asked as ever.
"""

from types import NoneType
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, optimizeconst
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing

_OF_DICTS = frozenset(dir(dict))
"""What is read of a dict by these names is its own, such as `items`, and not a field."""

_OF_LOOPS = frozenset({"first", "last", "index", "index0", "revindex", "revindex0", "length", "depth", "depth0"})
"""What a loop tells in numbers, and whether it is at an end."""

_HOLDERS = frozenset({LoopContext, Namespace})
_PLAIN = frozenset({bool, int, float, str, NoneType, dict, list})
"""Values that are no methods, for which the sandbox may have something else in their place."""


class _Code(CodeGenerator):
    """Writes templates that ask the environment only for what is no field of a plain dict, and no figure of a loop."""

    @optimizeconst
    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:  # noqa: N802  (jinja2 names it so)
        """`object.name`."""
        name = node.attr
        if name in _OF_DICTS:
            super().visit_Getattr(node, frame)
        elif name in _OF_LOOPS and isinstance(node.node, nodes.Name) and node.node.name == "loop":
            self.write(f"(read.{name} if type(read := ")
            self.visit(node.node, frame)
            self.write(f") is LoopContext else environment.getattr(read, {name!r}))")
        else:
            self.write(f"(read[{name!r}] if type(read := ")
            self.visit(node.node, frame)
            self.write(f") is dict and {name!r} in read else environment.getattr(read, {name!r}))")


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment whose templates can do no harm."""

    code_generator_class = _Code

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As in the sandbox: the attribute, else the item of that name, else an undefined value."""
        kind = type(obj)
        if kind is dict:
            if attribute not in _OF_DICTS:
                return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        elif kind in _HOLDERS and not attribute.startswith("_"):
            value = getattr(obj, attribute, missing)
            if type(value) in _PLAIN:
                return value
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """As in the sandbox: of texts, all is safe but what is internal."""
        return not attr.startswith("_") if type(obj) is str else super().is_safe_attribute(obj, attr, value)
