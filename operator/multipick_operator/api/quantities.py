"""Quantities in a pod template that an API server makes no end of: with a long exponent it computes for minutes (1.36).

What the schema knows to be a quantity it bounds itself; a pod template goes to the API server as it is.
"""

import re
from collections.abc import Iterator

from multipick_operator.api.nesting import fields_within

_MAPS = frozenset({"requests", "limits"})
_FIELDS = frozenset({"sizeLimit", "divisor"})
_ENDLESS = re.compile(r"\s*[-+]?[0-9.]*[eE][-+]?[0-9]{3,}\s*")
_MAX_CHARS = 64


def endless_quantities(node: object) -> Iterator[str]:
    """All of them below `node`, which is not `is_nested`."""
    for name, value in fields_within(node):
        quantities = value.values() if name in _MAPS and isinstance(value, dict) else [value] if name in _FIELDS else ()
        for one in quantities:
            if isinstance(one, str) and (len(one) > _MAX_CHARS or _ENDLESS.fullmatch(one)):
                yield one
