"""What chat templates are rendered with in `transformers`: jinja2's own sandbox and code, quick or not."""

from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from multipick_epp.tokens.template import _environment


def plain_environment() -> ImmutableSandboxedEnvironment:
    """With the same extensions, filters and functions as ours."""
    ours = _environment()
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[*ours.extensions])
    plain.filters |= ours.filters
    plain.globals |= ours.globals | {"namespace": Namespace}
    return plain
