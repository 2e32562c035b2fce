"""What stands in an endpoint's fence, by whatever version it was written."""

from multipick_epp.state.redis import replies
from multipick_epp.state.redis.connection import Connection, LostError, WrongTypeError
from multipick_epp.state.redis.keys import Keys
from multipick_epp.state.redis.malformed import Malformed
from multipick_epp.state.redis.records import MALFORMED, cache_named
from multipick_epp.types import Endpoint


async def cache_names(connection: Connection, keys: Keys, endpoint: Endpoint, malformed: Malformed) -> list[bytes]:
    """The names of all its caches, also those that we can't read. Raises `LostError`."""
    fence = keys.fence(endpoint)
    try:
        fields = replies.strings(await connection.read("HKEYS", fence))
    except WrongTypeError as error:
        malformed.skip("fence", fence, error)
        return []
    return [field for field in fields if field.startswith(b"[")]  # the others are the fence's own


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
