"""Where chat templates run: jinja2's immutable sandbox, as in `transformers`, but quick at what templates read most.

The sandbox looks at every attribute that a template reads, which takes one to four microseconds, and is most of the
rendering of a long chat. Nearly all that is read are fields of messages, figures of the loop over them and values in a
namespace. Of these it is known beforehand what the sandbox says, so they are read as they are; about all else it is
asked as ever.
"""

from types import NoneType
from typing import Any

from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing

_OF_DICTS = frozenset(dir(dict))
"""What is read of a dict by these names is its own, such as `items`, and not a field."""

_HOLDERS = frozenset({LoopContext, Namespace})
_PLAIN = frozenset({bool, int, float, str, NoneType, dict, list})
"""Values that are no methods, for which the sandbox may have something else in their place."""


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment whose templates can do no harm."""

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
