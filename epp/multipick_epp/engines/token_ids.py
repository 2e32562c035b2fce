"""The answers of `/tokenize`, `{"count": ..., "max_model_len": ..., "tokens": [1, 2, ...]}`, and of the render paths,
`{"request_id": ..., "token_ids": [1, 2, ...], ...}`.

A long prompt has a long answer, and any decoder holds the loop for as long as it takes: 20 ms for a million ids. So the
ids are read some thousands at a time, and others get their turn in between.
"""

import asyncio
import re
from array import array

_TOKENS = re.compile(rb'"(?:tokens|token_ids)"\s*:\s*\[([^\]\[{}"]*)\]')
"""The first such list. A client's own words can't be one: quotes in JSON strings are escaped."""
_PIECE_BYTES = 16 << 10
"""Some 3,000 ids: a third of a millisecond."""


async def parse(body: bytes, at_most: int) -> "array[int] | None":
    """The ids; None for what is no such answer, and for more than `at_most` ids."""
    found = _TOKENS.search(body)
    if found is None:
        return None
    ids = array("I")
    start, end = found.span(1)
    try:
        while start < end:
            cut = body.find(b",", start + _PIECE_BYTES, end)
            cut = end if cut < 0 else cut
            ids.extend(map(int, body[start:cut].split(b",")))
            if len(ids) > at_most:
                return None
            start = cut + 1
            if start < end:
                await asyncio.sleep(0)
    except (ValueError, OverflowError):  # no number, or none of 32 bits
        return None
    return ids
