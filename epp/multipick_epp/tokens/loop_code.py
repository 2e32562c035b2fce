"""The loops of chat templates in Python: jinja2's, but counted by Python itself.

jinja2 makes an object of each loop that tells its figures, which costs 0.3 us a turn and 0.1 to 0.2 for each figure.
Most loops are over a list, of which place and length say it all; over anything else jinja2's own object is asked. What
a turn looks up of the chat's variables is looked up once, since none of them changes inside a loop.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, find_undeclared
from jinja2.idtracking import VAR_LOAD_ALIAS, VAR_LOAD_RESOLVE
from jinja2.runtime import LoopContext, Undefined

NUMBERS = {
    "first": "{0}_at == 0",
    "last": "{0}_at == {0}_end if {0} is None else {0}.last",
    "index": "{0}_at + 1",
    "index0": "{0}_at",
    "revindex": "{0}_end - {0}_at + 1 if {0} is None else {0}.revindex",
    "revindex0": "{0}_end - {0}_at if {0} is None else {0}.revindex0",
    "length": "{0}_end + 1 if {0} is None else {0}.length",
    "depth": "1",
    "depth0": "0",
}
"""What a loop tells in numbers, and whether it is at an end; in Python, by the name of its variable."""

_FIGURES = NUMBERS | {
    "previtem": "({0}_items[{0}_at - 1] if {0}_at else undefined('there is no previous item'))"
    " if {0} is None else environment.getattr({0}, 'previtem')",
    "nextitem": "({0}_items[{0}_at + 1] if {0}_at < {0}_end else undefined('there is no next item'))"
    " if {0} is None else environment.getattr({0}, 'nextitem')",
}
"""The same, and the items beside the one that it is at."""

_OWN_SCOPE = (nodes.Macro, nodes.CallBlock, nodes.Block, nodes.Include, nodes.Import, nodes.FromImport)
"""What may need the loop's object, and in another function."""


class LoopCode(CodeGenerator):
    """Writes loops. Invariant: `_counted` has the variables of those that are being written and have no object."""

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:  # noqa: N802  (jinja2's name)
        """The whole of it."""
        self._counted: set[str] = set()
        self.writeline("from multipick_epp.tokens.loop_code import counted")
        super().visit_Template(node, frame)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802
        """`for`, of the usual form."""
        if node.recursive or node.test or node.else_ or any(node.find_all(_OWN_SCOPE)) or not _asks_for_figures(node):
            super().visit_For(node, frame)
            return
        inside = frame.inner()
        inside.loop_frame = True
        tells = "loop" in find_undeclared(node.iter_child_nodes(only=("body",)), ("loop",))
        loop = inside.symbols.declare_parameter("loop") if tells else ""
        inside.symbols.analyze_node(node, for_branch="body")
        for name, (how, variable) in [*inside.symbols.loads.items()]:
            if how == VAR_LOAD_RESOLVE:
                self.writeline(f"{name}_before = {self.get_resolve_func()}({variable!r})")
                inside.symbols.loads[name] = VAR_LOAD_ALIAS, f"{name}_before"
        if tells:
            self._counted.add(loop)
            self.writeline(f"{loop}_items, {loop}_end, {loop} = counted(", node)
            self.visit(node.iter, frame)
            self.write(", undefined)")
            self.writeline(f"for {loop}_at, ")
            self.visit(node.target, inside)
            self.write(f" in enumerate({loop}_items):")
        else:
            self.writeline("for ", node)
            self.visit(node.target, inside)
            self.write(" in ")
            self.visit(node.iter, frame)
            self.write(":")
        self.indent()
        self.enter_frame(inside)
        self.writeline("_loop_vars = {}")
        self.blockvisit(node.body, inside)
        self.outdent()
        self.leave_frame(inside)
        self._counted.discard(loop)
        if self._assign_stack:
            self._assign_stack[-1].difference_update(inside.symbols.stores)

    def figure(self, node: nodes.Node, frame: Frame) -> str | None:
        """What `node` is in Python, if it is a figure of a loop that has no object."""
        if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name) and node.node.name == "loop":
            loop = frame.symbols.find_ref("loop")
            if loop in self._counted:
                return f"({_FIGURES[node.attr].format(loop)})"
        return None


def counted(
    items: Iterable[Any], undefined: type[Undefined]
) -> tuple[Iterable[Any], int, None] | tuple[Iterator[Any], None, LoopContext]:
    """What a loop goes over, the place of the last item, and what tells its figures where it is no list."""
    if type(items) is list:
        return items, len(items) - 1, None
    loop = LoopContext(items, undefined)
    return (item for item, _ in loop), None, loop


def _asks_for_figures(node: nodes.For) -> bool:
    """Whether that is all that is done with `loop`, of this loop and those inside."""
    asked = [each for each in node.find_all(nodes.Getattr) if each.attr in _FIGURES]
    figures = sum(isinstance(each.node, nodes.Name) and each.node.name == "loop" for each in asked)
    return figures == sum(name.name == "loop" for name in node.find_all(nodes.Name))
