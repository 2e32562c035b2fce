"""Whether a chat template reads a message's content as a string or as a list of parts.

The engine decides that from the template's syntax tree: "openai" if some loop goes over the content of a message,
directly, through a variable or through a macro's parameter (the rule of vLLM 0.32, `renderers/hf.py`). It is part of
the tokens: in "string" format, text parts are joined by line breaks.
"""

from collections.abc import Iterator

from jinja2 import nodes

from multipick_epp.tokens.settings import ContentFormat


def content_format(tree: nodes.Template) -> ContentFormat:
    """The format that the template with this syntax tree wants."""
    messages = set(_message_names(tree))
    parameters = _content_parameters(tree, messages)
    in_macros = {id(loop) for macro in tree.find_all(nodes.Macro) for loop in macro.find_all(nodes.For)}
    for loop in tree.find_all(nodes.For):
        if any(_reads(loop.iter, name, "content") for name in messages):
            return "openai"
        if isinstance(loop.iter, nodes.Name):
            named = loop.iter.name
            if named in parameters.get(id(loop), ()) or (named == "content" and id(loop) not in in_macros):
                return "openai"
    return "string"


def _message_names(tree: nodes.Template) -> Iterator[str]:
    """The variables that loops over the messages set, one message at a time."""
    lists = ["messages"]
    for known in lists:  # grows while it is read: names that were assigned from a known one
        for assign in tree.find_all(nodes.Assign):
            target = assign.target
            if isinstance(target, nodes.Name) and target.name not in lists and _reads(assign.node, known):
                lists.append(target.name)
    for loop in tree.find_all(nodes.For):
        if isinstance(loop.target, nodes.Name) and any(_reads(loop.iter, name) for name in lists):
            yield loop.target.name


def _content_parameters(tree: nodes.Template, messages: set[str]) -> dict[int, set[str]]:
    """For each loop in a macro (by id), the macro's parameters that some call gives a message's content."""
    parameters: dict[int, set[str]] = {}
    for macro in tree.find_all(nodes.Macro):
        names = [argument.name for argument in macro.args]
        given: set[str] = set()
        for call in tree.find_all(nodes.Call):
            if not (isinstance(call.node, nodes.Name) and call.node.name == macro.name):
                continue
            arguments = [*zip(names, call.args, strict=False), *((k.key, k.value) for k in call.kwargs)]
            given |= {
                name
                for name, value in arguments
                if name in names and any(_reads(value, message, "content") for message in messages)
            }
        for loop in macro.find_all(nodes.For):
            parameters[id(loop)] = given
    return parameters


def _reads(node: nodes.Node | None, name: str, key: str | None = None) -> bool:
    """Whether an expression is the variable `name` (or its field `key`), maybe filtered, tested or sliced."""
    if isinstance(node, nodes.Filter | nodes.Test):
        return _reads(node.node, name, key)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        return _reads(node.node, name, key)
    if key is None:
        return isinstance(node, nodes.Name) and node.ctx == "load" and node.name == name
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == key and _reads(node.node, name)
    return isinstance(node, nodes.Getattr) and node.attr == key and _reads(node.node, name)
