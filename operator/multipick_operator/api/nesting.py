"""How deep a value is, told without recursion, since what follows has to be able to recur; and what is within it."""

from collections.abc import Iterable, Iterator, Mapping


def is_nested(value: object, most: int) -> bool:
    """Whether it has more levels of objects and lists than that."""
    level = [value]
    for _ in range(most):
        level = [one for outer in level for one in _within(outer)]
    return bool(level)


def fields_within(value: object) -> Iterator[tuple[str, object]]:
    """Name and value of each field of the objects in it, outer ones first. Of a value that is not `is_nested`."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield name, one
            yield from fields_within(one)
    elif isinstance(value, list):
        for one in value:
            yield from fields_within(one)


def _within(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()
