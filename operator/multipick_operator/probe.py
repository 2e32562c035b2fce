"""Asks a pool's pickers how well they know what the engines cache."""

import json
from typing import Any

import aiohttp

from multipick_operator.api.pool import Pool
from multipick_operator.children.names import picker_name
from multipick_operator.children.picker import ADMIN_PORT
from multipick_operator.status.observed import IndexReport

TIMEOUT = aiohttp.ClientTimeout(total=2)
MAX_BYTES = 4 << 20


class PickerProbe:
    """`GET /endpoints` of the pickers' Service, whose rows carry the residency mode of each endpoint."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, pool: Pool) -> IndexReport | None:
        """One picker's view; None where none answers in words we know."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=TIMEOUT)
        url = f"http://{picker_name(pool)}.{pool.namespace}:{ADMIN_PORT}/endpoints"
        try:
            async with self._session.get(url) as answer:
                if answer.status != 200:
                    return None
                return report(json.loads(await answer.content.read(MAX_BYTES)))
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()


def report(rows: Any) -> IndexReport | None:
    """What the rows of `/endpoints` say; None for what is no such list, or without a ready endpoint."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return None
    modes = [str(row.get("mode", "")) for row in rows if row.get("ready")]
    if not modes:
        return None
    exact = modes.count("exact")
    message = f"{exact} of {len(modes)} endpoints known exactly"
    if exact == len(modes):
        return IndexReport(True, "EventsArriving", message)
    if "blind" in modes:
        return IndexReport(False, "NoEvents", f"{message}; {modes.count('blind')} send no KV events that can be used")
    return IndexReport(False, "EventsIncomplete", f"{message}; events of the others were lost, and will be again whole")
