"""Files that a process may have open at once."""

import resource
from contextlib import suppress


def allow_descriptors() -> None:
    """As many as may be: many systems allow 1,024 unless one asks. What this process starts is allowed as many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
