"""Where chat templates run: jinja2's immutable sandbox, as in `transformers`, but quick at what templates do most.

The sandbox looks at every attribute that a template reads, which takes one to four microseconds, and is most of the
rendering of a long chat. Much of it the compiled template reads by itself (`template_code`); most of the rest are
fields of messages, figures of loops, values in a namespace and macros, of which it is known beforehand what the sandbox
says. About all else it is asked as ever.
"""

from types import NoneType
from typing import Any

from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing

from multipick_epp.tokens.template_code import OF_DICTS, TemplateCode

PLAIN = frozenset({bool, int, float, str, NoneType, dict, list})
"""Values that are no methods, for which the sandbox may have something else in their place."""


class Fields(Namespace):
    """What templates get as `namespace`: reads its values as plain attributes, seven times as fast as jinja2's own."""

    def __init__(*args: Any, **values: Any) -> None:
        """See `Namespace`, which takes any name too, `self` as well."""
        own, *given = args
        own.__dict__.update(dict(*given, **values))

    __getattribute__ = object.__getattribute__

    def __setitem__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    def __repr__(self) -> str:
        return f"<Namespace {self.__dict__!r}>"


_HOLDERS = frozenset({Fields, LoopContext})


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment whose templates can do no harm."""

    code_generator_class = TemplateCode

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See `jinja2.Environment`."""
        super().__init__(*args, **kwargs)
        self.globals["namespace"] = Fields

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As in the sandbox: the attribute, else the item of that name, else an undefined value."""
        kind = type(obj)
        if kind is dict:
            if attribute not in OF_DICTS:
                return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        elif kind in _HOLDERS and not attribute.startswith("_"):
            value = getattr(obj, attribute, missing)
            if type(value) in PLAIN:
                return value
        return super().getattr(obj, attribute)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  (as in jinja2)
        """As in the sandbox, which looks long at what is but a macro of the template, or a namespace."""
        if type(__obj) is not Macro and __obj is not Fields:
            return super().call(__context, __obj, *args, **kwargs)
        kwargs.pop("_loop_vars", None)
        kwargs.pop("_block_vars", None)
        return Fields(*args, **kwargs) if __obj is Fields else __obj(__context.eval_ctx, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """As in the sandbox: of texts, all is safe but what is internal."""
        return not attr.startswith("_") if type(obj) is str else super().is_safe_attribute(obj, attr, value)
