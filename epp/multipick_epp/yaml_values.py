"""YAML -> typed values, where nothing is said twice: of two values under one name PyYAML takes the last, unsaid."""

import datetime
from typing import Any, TypeVar

import msgspec
import yaml

_MERGE = "tag:yaml.org,2002:merge"

T = TypeVar("T")


def decode(document: bytes, kind: type[T]) -> T:
    """As `msgspec.yaml.decode`: raises msgspec.ValidationError for another kind, msgspec.DecodeError for no YAML, and
    for a name that is twice in one mapping; RecursionError for what is nested without end.
    """
    try:
        value = yaml.load(document, _Loader)
    except yaml.YAMLError as error:
        raise msgspec.DecodeError(str(error)) from error
    return msgspec.convert(value, kind, builtin_types=(datetime.datetime, datetime.date))


class _Loader(yaml.CSafeLoader):
    """Invariant: `_checked` has the mappings whose merged names (`<<`) may stand among their own by now."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._checked: set[int] = set()

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node; yaml.YAMLError, with its place, for one that is not what it looks like."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError) as error:  # as PyYAML's own constructors fail
            what = f"{str(node.value)[:100]!r}: {error}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from error

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put the names that a mapping merges before its own, which replace them."""
        if id(node) not in self._checked:
            self._checked.add(id(node))
            self._check(node)
        super().flatten_mapping(node)

    def _check(self, node: yaml.MappingNode) -> None:
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                name = self.construct_object(key)
                if name in names:
                    raise yaml.constructor.ConstructorError(None, None, f"{name!r} is there twice", key.start_mark)
                names.add(name)
