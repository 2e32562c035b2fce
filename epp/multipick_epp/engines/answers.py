"""Answers of engines over HTTP: theirs to make, so of any length."""

import aiohttp


async def read_at_most(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The whole body; None for one of more than `limit` bytes, of which no more than a piece beyond these is taken.

    `StreamReader.read(limit)` would not do: it gives what has arrived so far. Raises what reading raises.
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)
