"""Asks a pool's pickers how they do: `GET /status` of each, at its own address, since each may be cut off by itself."""

import asyncio
from collections.abc import Sequence

import aiohttp

from multipick_operator.children.picker import ADMIN_PORT
from multipick_operator.status.pickers import MAX_ANSWER_BYTES, PickerReport, read

TIMEOUT = aiohttp.ClientTimeout(total=2)
MAX_PICKERS = 16


class PickerProbe:
    """One client for all pools."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, addresses: Sequence[str]) -> list[PickerReport]:
        """What those at these IP addresses say, within TIMEOUT; who doesn't answer in words we know is left out."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=TIMEOUT)
        answers = await asyncio.gather(*(self._ask(self._session, one) for one in addresses[:MAX_PICKERS]))
        return [answer for answer in answers if answer is not None]

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    async def _ask(self, session: aiohttp.ClientSession, address: str) -> PickerReport | None:
        host = f"[{address}]" if ":" in address else address
        try:
            async with session.get(f"http://{host}:{ADMIN_PORT}/status", allow_redirects=False) as answer:
                if answer.status != 200:
                    return None
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        return None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        return read(bytes(body))
