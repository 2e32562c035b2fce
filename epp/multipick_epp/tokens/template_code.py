"""The Python that chat templates are compiled to: jinja2's, but quick at what templates do for every message.

As jinja2 writes it, a template asks its environment for every field, item and method, which costs 0.2 to 12 us each and
is most of the rendering of a long chat. Nearly all of that is of a few kinds, of which it is known beforehand what the
sandbox says: fields of messages, figures of the loop over them, values in a namespace, methods of texts and dicts that
change nothing. So the template looks itself whether it has such a value, and asks about all else as ever. A long chat
takes 0.17 to 0.99 of the time so, half of 66 models' templates less than 0.58 (bench/README.md).
"""

from collections.abc import Iterator

from jinja2 import nodes
from jinja2.compiler import Frame, optimizeconst

from multipick_epp.tokens.loop_code import NUMBERS, LoopCode

OF_DICTS = frozenset(dir(dict))
"""What is read of a dict by these names is its own, such as `items`, and not a field."""

_METHODS = {
    **dict.fromkeys(("get", "items", "keys", "values"), "dict"),
    **dict.fromkeys(
        ("endswith", "lower", "lstrip", "rsplit", "rstrip", "split", "startswith", "strip", "upper"), "str"
    ),
}
"""Methods that change nothing, and the type that each is of."""

Read = nodes.Getattr | nodes.Getitem


class TemplateCode(LoopCode):
    """Writes one template."""

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:  # noqa: N802  (jinja2's name)
        """The whole of it."""
        targets = [assign.target for assign in node.find_all(nodes.Assign) if _is_namespace(assign.node)]
        self._namespaces = {target.name for target in targets if isinstance(target, nodes.Name)}
        self._conditions: set[int] = set()
        self.writeline("from multipick_epp.tokens.sandbox import PLAIN, Fields")
        super().visit_Template(node, frame)

    def visit_If(self, node: nodes.If, frame: Frame) -> None:  # noqa: N802
        """`if`, with all its branches."""
        for branch in (node, *node.elif_):
            self._conditions.update(map(id, _conditions(branch.test)))
        super().visit_If(node, frame)

    @optimizeconst
    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:  # noqa: N802
        """`object.name`."""
        owner = node.node.name if isinstance(node.node, nodes.Name) else None
        if figure := self.figure(node, frame):
            self.write(figure)
        elif owner == "loop" and node.attr in NUMBERS:
            self._read(node, frame, f"read.{node.attr}", "LoopContext")
        elif owner in self._namespaces and not node.attr.startswith("_"):
            kind = f"Fields and type(value := getattr(read, {node.attr!r}, missing)) in PLAIN"
            self._read(node, frame, "value", kind)
        elif node.attr in OF_DICTS:
            super().visit_Getattr(node, frame)
        else:
            self._read_field(node, frame)

    @optimizeconst
    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        """`object[item]`."""
        if _field(node) is None:
            super().visit_Getitem(node, frame)
        else:
            self._read_field(node, frame)

    @optimizeconst
    def visit_Test(self, node: nodes.Test, frame: Frame) -> None:  # noqa: N802
        """`value is test`."""
        tested = node.node
        if (
            node.name == "defined"
            and isinstance(tested, Read)
            and (name := _field(tested)) is not None
            and not self.figure(tested, frame)
        ):
            test = self.tests[node.name]
            self._begin(tested, frame, f"{name!r} in read and {test}(read[{name!r}])", "dict")
            self.write(f"{test}({_asked(tested)}))")
        else:
            super().visit_Test(node, frame)

    @optimizeconst
    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:  # noqa: N802
        """`function(arguments)`."""
        method = node.node
        plain = _is_given_constants(node) and not forward_caller
        if plain and isinstance(method, nodes.Getattr) and method.attr in _METHODS:
            given = ", ".join(repr(argument.as_const()) for argument in node.args)
            self._begin(method, frame, f"read.{method.attr}({given})", _METHODS[method.attr])
            self.write(f"environment.call(context, {_asked(method)}")
            inside = {"_loop_vars": frame.loop_frame, "_block_vars": frame.block_frame}
            self.signature(node, frame, {name: name for name, is_inside in inside.items() if is_inside} or None)
            self.write("))")
        else:
            super().visit_Call(node, frame, forward_caller=forward_caller)

    def _read_field(self, node: Read, frame: Frame) -> None:
        """Of a message, or whatever is a dict."""
        name = _field(node)
        if id(node) in self._conditions:  # a field that is not there counts as false, as what would stand for it
            self._read(node, frame, f"read.get({name!r})", "dict")
        else:
            self._read(node, frame, f"read[{name!r}]", f"dict and {name!r} in read")

    def _read(self, node: Read, frame: Frame, quick: str, kind: str) -> None:
        """What is read of an object: quickly if it is of a kind, else what the environment says."""
        self._begin(node, frame, quick, kind)
        self.write(f"{_asked(node)})")

    def _begin(self, node: Read, frame: Frame, quick: str, kind: str) -> None:
        """The same up to what else is done, where it is another thing."""
        self.write(f"({quick} if type(read := ")
        self.visit(node.node, frame)
        self.write(f") is {kind} else ")


def _is_namespace(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "namespace"


def _field(node: Read) -> str | None:
    """The name of the field, if it is a dict of which it is read, and nothing of the dict's own."""
    if isinstance(node, nodes.Getattr):
        name: object = node.attr
    else:
        name = node.arg.value if isinstance(node.arg, nodes.Const) else None
    return name if isinstance(name, str) and name not in OF_DICTS else None


def _asked(node: Read) -> str:
    """What asks the environment."""
    if isinstance(node, nodes.Getattr):
        return f"environment.getattr(read, {node.attr!r})"
    return f"environment.getitem(read, {_field(node)!r})"


def _conditions(test: nodes.Node) -> Iterator[nodes.Node]:
    """The parts of a condition of which nothing but their truth counts."""
    if isinstance(test, nodes.And | nodes.Or):
        yield from _conditions(test.left)
        yield from _conditions(test.right)
    elif isinstance(test, nodes.Not):
        yield from _conditions(test.node)
    else:
        yield test


def _is_given_constants(call: nodes.Call) -> bool:
    named = call.kwargs or call.dyn_args or call.dyn_kwargs
    return not named and all(isinstance(argument, nodes.Const) for argument in call.args)
