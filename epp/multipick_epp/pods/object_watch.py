"""Objects of a cluster, followed: list once, then follow the changes; list again where they are lost.

The API server ends every watch after some minutes, and forgets old resource versions (410): both are ordinary. What it
says is input like any other: an object that is none of its kind is passed over, a watch that ends at once is not asked
for again at once, and one that says nothing is given up. Without the API server all stays as it was.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Generic, TypeVar

import aiohttp
import msgspec
from kubernetes.aio import client
from kubernetes.aio.client import ApiException

from multipick_epp.engines.answers import read_at_most
from multipick_epp.pods.pod_objects import Metadata
from multipick_epp.tasks.backoff import Backoff

log = logging.getLogger(__name__)

WATCH_S = 270
SILENT_S = 90.0
"""Bookmarks come once a minute: a watch that says nothing for so long is dead."""
LIST_S = 30.0
A_PAGE = 100
MAX_PAGE_BYTES = 64 << 20
MAX_EVENT_BYTES = 4 << 20
MAX_OBJECTS = 10_000
_PAUSE_S = (0.2, 10.0)  # first and longest pause before the API server is asked again
LONG_ENOUGH_S = 10.0
"""A watch that lasted so long was a good one: the next pause is the first again."""

Connect = Callable[[], Awaitable[client.ApiClient]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """One object, as far as it matters."""

    uid: str
    version: str
    view: T | None  # None: it is there, and gives nothing


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str | None = msgspec.field(default=None, name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMetadata
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Bookmark(msgspec.Struct):
    metadata: Metadata


class _Status(msgspec.Struct):
    code: int | None = None
    message: str | None = None


class LostWatchError(Exception):
    """The watch can't go on from where it was; the message says why."""


class ObjectWatch(Generic[T]):
    """Follows the objects at one path. Invariant: `_objects` has those of the last list, and changes since."""

    def __init__(
        self,
        kind: str,
        path: str,
        selector: Mapping[str, str],
        connect: Connect,
        read: Callable[[msgspec.Raw], Seen[T] | None],
        tell: Callable[[Mapping[str, T]], None],
    ) -> None:
        """`connect` makes a client of the API server, which is closed here. `read` gives None for what is no object of
        the kind. `tell` is called with all that there are, by their uids, whenever that may have changed.
        """
        self.outage: str | None = "starting"  # why they are not watched now
        self.passed_over = 0  # objects that were none
        self._kind = kind
        self._path = path
        self._selector = dict(selector)
        self._connect = connect
        self._read = read
        self._tell = tell
        self._objects: dict[str, T] = {}
        self._rng = Random()

    async def follow(self) -> None:
        """For ever; what goes wrong is logged and tried again after a pause that grows."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(*_PAUSE_S, self._rng)
        while True:
            api = await self._connect()
            try:
                version: str | None = None
                while True:
                    started = loop.time()
                    version = await self._once(api, version)
                    if loop.time() - started >= LONG_ENOUGH_S:
                        backoff.reset()
                    await asyncio.sleep(backoff.next_s())
            except PermissionError:  # its credentials are read anew
                await asyncio.sleep(backoff.next_s())
            finally:
                await api.close()  # type: ignore[no-untyped-call]

    async def _once(self, api: client.ApiClient, version: str | None) -> str | None:
        """One watch from `version` on, of a new list where that is None; the version to go on from, if any.

        Raises PermissionError where the API server doesn't know us.
        """
        try:
            if version is None:
                version = await self._list(api)
            self._say(None)
            return await self._watch(api, version)
        except ApiException as error:
            self._say(f"status {error.status}: {error.reason}")
            if error.status == 401:
                raise PermissionError from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, LostWatchError) as error:
            self._say(str(error) or type(error).__name__)
        return None

    async def _list(self, api: client.ApiClient) -> str:
        objects: dict[str, T] = {}
        parameters = {**self._selector, "limit": str(A_PAGE)}
        while True:
            async with await self._get(api, parameters, aiohttp.ClientTimeout(total=LIST_S)) as response:
                body = await read_at_most(response, MAX_PAGE_BYTES)
            if body is None:
                raise LostWatchError(f"a list of more than {MAX_PAGE_BYTES} bytes")
            page = msgspec.json.decode(body, type=_Page)
            for item in page.items or ():
                self._take(item, objects)
            if not page.metadata.continue_:
                break
            if len(objects) > MAX_OBJECTS:
                raise LostWatchError(f"more than {MAX_OBJECTS} of {self._kind}")
            parameters["continue"] = page.metadata.continue_
            await asyncio.sleep(0)
        self._objects = objects
        self._tell(objects)
        return page.metadata.resource_version

    async def _watch(self, api: client.ApiClient, version: str) -> str:
        """Follow until the server ends the watch; the version to go on from. Raises LostWatchError where it is lost."""
        parameters = {
            **self._selector,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENT_S)
        async with await self._get(api, parameters, timeout) as response:
            async for event in _events(response):
                if event.type == "ERROR":
                    status = msgspec.json.decode(event.object, type=_Status)
                    raise LostWatchError(f"{status.code}: {status.message}"[:200])
                if event.type == "BOOKMARK":
                    found = msgspec.json.decode(event.object, type=_Bookmark).metadata.resource_version
                else:
                    found = self._take(event.object, self._objects, gone=event.type == "DELETED")
                    self._tell(self._objects)
                version = found or version
        return version

    def _take(self, data: msgspec.Raw, objects: dict[str, T], gone: bool = False) -> str:
        """Note one object; its version, "" of what is none."""
        seen = self._read(data)
        if seen is None:
            self.passed_over += 1
            log.warning("an object is passed over", extra={"is_no": self._kind, "so_far": self.passed_over})
            return ""
        if gone or seen.view is None:
            objects.pop(seen.uid, None)
        elif seen.uid in objects or len(objects) < MAX_OBJECTS:
            objects[seen.uid] = seen.view
        return seen.version

    def _say(self, outage: str | None) -> None:
        if outage is not None:
            log.warning("objects not watched", extra={"kind": self._kind, "why": outage})
        self.outage = outage

    async def _get(
        self, api: client.ApiClient, parameters: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """The answer, of which only the head has been read. Raises ApiException for any status but 200."""
        request = await api.param_serialize(
            "GET",
            self._path,
            query_params=list(parameters.items()),
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        answer = await api.call_api(*request, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        if response.status != 200:
            response.close()
            raise ApiException(status=response.status, reason=response.reason)
        return response


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[_Event]:
    """The watch's events, one JSON object a line. Raises LostWatchError for a line of more than MAX_EVENT_BYTES."""
    line = bytearray()
    async for chunk in response.content.iter_any():
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line += end
            if line.strip():
                yield msgspec.json.decode(bytes(line), type=_Event)
            line.clear()
        line += rest
        if len(line) > MAX_EVENT_BYTES:
            raise LostWatchError(f"an event of more than {MAX_EVENT_BYTES} bytes")
    if line.strip():
        raise LostWatchError("it ended amid an event")
