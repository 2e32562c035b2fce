"""Asks a pool's pods how they do, each at its own address, since each may be cut off by itself.

Pickers by `GET /status`; engines that fetch their weights how far they are.
"""

import asyncio
from collections.abc import Mapping, Sequence

import aiohttp

from multipick_operator.bounded import body_of
from multipick_operator.children.configuration import ADMIN_PORT
from multipick_operator.status.fetching import progress
from multipick_operator.status.pickers import MAX_ANSWER_BYTES, PickerReport, read
from multipick_operator.weights import PORT as WEIGHTS_PORT

TIMEOUT = aiohttp.ClientTimeout(total=2)
MAX_PICKERS = 16
MAX_FETCHING = 4
MAX_PROGRESS_BYTES = 4096


class PodProbe:
    """One client for all pools."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def pickers(self, addresses: Sequence[str]) -> list[PickerReport]:
        """What those at these IP addresses say, within TIMEOUT; who doesn't answer in words we know is left out."""
        found = await self._ask_all(addresses[:MAX_PICKERS], ADMIN_PORT, "/status", MAX_ANSWER_BYTES)
        return [report for body in found.values() if (report := read(body)) is not None]

    async def fetching(self, pods: Mapping[str, str]) -> list[str]:
        """How far these pods (name -> IP address) are with their weights, in words; of a few of them."""
        some = dict(sorted(pods.items())[:MAX_FETCHING])
        found = await self._ask_all(list(some.values()), WEIGHTS_PORT, "/", MAX_PROGRESS_BYTES)
        return [f"{name}: {words}" for name, at in some.items() if (words := progress(found.get(at, b"")))]

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    async def _ask_all(self, addresses: Sequence[str], port: int, path: str, most: int) -> dict[str, bytes]:
        """The answers, by address."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=TIMEOUT)
        answers = await asyncio.gather(*(_ask(self._session, one, port, path, most) for one in addresses))
        return {at: body for at, body in zip(addresses, answers, strict=True) if body is not None}


async def _ask(session: aiohttp.ClientSession, address: str, port: int, path: str, most: int) -> bytes | None:
    host = f"[{address}]" if ":" in address else address
    try:
        async with session.get(f"http://{host}:{port}{path}", allow_redirects=False) as answer:
            if answer.status != 200:
                return None
            return await body_of(answer, most)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return None
