"""The users of the shared store: made for each pool, and made again whenever the store has forgotten them.

Valkey keeps users in memory, and in a file where it may write one, as the chart's may. One without, that was restarted,
knows only the administrator; so does a standby that becomes the master. So a connection is kept, and whenever it has to
be made anew, so are all users.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from multipick_operator.children.store_user import StoreUser
from multipick_operator.store_client import administrator

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

BEAT_S = 1.0  # how soon a restart is noticed
RETRY_S = 1.0


class StoreUsers:
    """Invariant: `_made` are users that the server of the present connection has; `_wanted` those it should have."""

    def __init__(self, url: str | None, password: str | None) -> None:
        self.trouble: str | None = None
        self._url = url
        self._password = password
        self._wanted: dict[str, StoreUser] = {}
        self._made: dict[str, StoreUser] = {}
        self._changed = asyncio.Event()

    def want(self, user: StoreUser) -> None:
        """The user is to exist, from soon on and for as long as it is wanted."""
        if self._wanted.get(user.name) != user:
            self._wanted[user.name] = user
            self._changed.set()

    def drop(self, name: str) -> None:
        """It is no longer wanted."""
        if self._wanted.pop(name, None):
            self._changed.set()

    async def run(self) -> NoReturn:
        """Keep the users made, for ever."""
        if self._url is None:
            await asyncio.Event().wait()
        while True:
            try:
                await self._keep()
            except Exception as error:
                trouble = str(error) or type(error).__name__
                if trouble != self.trouble:
                    log.warning("users of the store can't be made", extra={"why": trouble})
                self.trouble = trouble
            await asyncio.sleep(RETRY_S)

    async def _keep(self) -> NoReturn:
        async with administrator(self._url or "", self._password) as connection:
            generation = await self._generation(connection)
            self._made.clear()
            while True:
                await self._make(connection)
                self.trouble = None
                try:
                    async with asyncio.timeout(BEAT_S):
                        await self._changed.wait()
                except TimeoutError:
                    if await self._generation(connection) != generation:
                        raise ConnectionError("the store was restarted") from None

    async def _make(self, connection: "Redis") -> None:
        self._changed.clear()
        before = dict(self._made)
        for name, user in list(self._wanted.items()):
            if self._made.get(name) != user:
                await connection.execute_command("ACL", "SETUSER", name, "reset", *user.rules)  # type: ignore[no-untyped-call]
                self._made[name] = user
        for name in [name for name in self._made if name not in self._wanted]:
            await connection.execute_command("ACL", "DELUSER", name)  # type: ignore[no-untyped-call]
            del self._made[name]
        if self._made != before:
            await self._save(connection)

    async def _save(self, connection: "Redis") -> None:
        """For the server's next start. One without a file for them loses nothing but the moment until we are back."""
        from redis.exceptions import ResponseError

        try:
            await connection.execute_command("ACL", "SAVE")  # type: ignore[no-untyped-call]
        except ResponseError as error:
            log.info("users of the store are not saved", extra={"why": str(error)})

    async def _generation(self, connection: "Redis") -> str:
        """Another one for each start of the server, whatever connection asks. Raises where it is no master (any more).

        Users aren't replicated: those of a master that was replaced have to be made on the next one.
        """
        role, *_ = await connection.role()
        if role != b"master":
            raise ConnectionError("the store is no master")
        info = await connection.info("server")
        return str(info.get("run_id"))
