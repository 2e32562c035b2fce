"""What engines and pickers answer over HTTP is input: it has an end."""

import aiohttp


async def body_of(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """All of it. Raises ValueError where that is more than `most` bytes."""
    found = bytearray()
    async for chunk in answer.content.iter_any():
        found += chunk
        if len(found) > most:
            raise ValueError("an answer without an end")
    return bytes(found)
