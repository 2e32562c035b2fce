"""What stands in an endpoint's fence, by whatever version it was written."""

from multipick_epp.state.redis import replies
from multipick_epp.state.redis.connection import Connection, LostError
from multipick_epp.state.redis.keys import Keys
from multipick_epp.state.redis.malformed import Malformed
from multipick_epp.state.redis.records import MALFORMED, cache_named
from multipick_epp.state.redis.scripts import load
from multipick_epp.types import Endpoint


class Fences:
    """Asks for the names of an endpoint's caches, also those that we can't read."""

    def __init__(self, keys: Keys) -> None:
        self.script = load("caches", reads=True)
        self._keys = keys

    async def cache_names(self, connection: Connection, endpoint: Endpoint) -> list[bytes]:
        """Raises `LostError`."""
        return replies.strings(await connection.call(*self.script.command((self._keys.fence(endpoint),))))


def is_on(medium: str | None, name: bytes, malformed: Malformed) -> bool:
    """Whether the cache of that name is on a medium; None: any. One whose name we can't read may be."""
    try:
        return medium is None or cache_named(name).medium == medium
    except MALFORMED as error:
        malformed.skip("cache", name, error)
        return True


def position(reply: object) -> tuple[int, int] | None:
    """Epoch and last sequence; None where they are missing, or no numbers."""
    try:
        epoch, last = replies.strings(reply)
        return int(epoch), int(last)
    except (LostError, ValueError):
        return None
