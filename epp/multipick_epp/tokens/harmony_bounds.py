"""What is given to Harmony's own encoder: headers and the description of tools, within bounds.

That encoder takes a time that grows with the square of a word's length, 5 s for 100,000 times the same letter, line
break or dash, and holds the whole process meanwhile. A word is what its regular expression makes: letters, or signs
with line breaks behind them, or white space.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from multipick_epp.requests.nested_texts import texts_in
from multipick_epp.tokens.outcome import NoText

NAME_CHARS = 256
"""Of a function, with what Harmony puts before it."""

TOOLS_CHARS = 256_000
"""The tools of a request, as JSON."""

_WINDOW = 256
"""Words of so many characters may be refused, and those of twice as many are: they are rare, also without spaces."""

_LONG_WORD = re.compile(
    rf"[^\s\d!-/:-@\[-`{{-~\u2010-\u205e\u3001-\u3004\u3008-\u3011\uff01-\uff0f\uff1a-\uff20]{{{_WINDOW}}}"  # letters
    rf"|(?:[^\w\s]|[_\x1c-\x1f]){{{_WINDOW}}}"  # signs
    rf"|[\r\n/]{{{_WINDOW}}}|\s{{{_WINDOW}}}"  # what may end signs, and white space
)


def check_name(name: str | None) -> None:
    """Raises NoText for one that no function has."""
    if name is not None and len(name) > NAME_CHARS:
        raise NoText("too long")


def check_tools(tools: Sequence[Mapping[str, Any]]) -> None:
    """Raises NoText. Some values Harmony writes as they are, and others as JSON."""
    written = json.dumps(tools, ensure_ascii=False, separators=(",", ":"))
    if len(written) > TOOLS_CHARS or any(map(_has_long_word, (written, *texts_in(tools)))):
        raise NoText("too long")


def _has_long_word(text: str) -> bool:
    """Looks at a few places of ordinary texts."""
    return any(_LONG_WORD.match(text, at) for at in range(0, len(text), _WINDOW))
