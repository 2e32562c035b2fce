"""How deep a value is, told without recursion: what follows has to be able to recur."""

from collections.abc import Iterable, Mapping


def is_nested(value: object, most: int) -> bool:
    """Whether it has more levels of objects and lists than that."""
    level = [value]
    for _ in range(most):
        level = [one for outer in level for one in _within(outer)]
    return bool(level)


def _within(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()
