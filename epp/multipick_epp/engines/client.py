"""Asks engines over HTTP: one session, and the same care for every question. All ranks behind a port answer as one.

Answers come uncompressed (a small one could unpack to gigabytes), whole or not at all, within a time, and from the
engine itself: a redirect is an answer like any other that is not 200.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import aiohttp

from multipick_epp.engines import bounds, event_sources, metrics_page, models, token_ids, version
from multipick_epp.engines.answers import read_at_most
from multipick_epp.engines.event_sources import EventSource
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.engines.models import ServedModels
from multipick_epp.engines.unanswered import COMPRESSED, Unanswered, Why, broken, refused, slow, too_long
from multipick_epp.tasks.eager import in_task
from multipick_epp.types import Endpoint, address_of

if TYPE_CHECKING:
    from array import array

CONNECTIONS_AN_ENGINE = 64
_JSON = {"content-type": "application/json"}

_T = TypeVar("_T")


class EngineClient:
    """To be started in a running loop, and closed."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Nothing is asked yet."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=CONNECTIONS_AN_ENGINE),
            headers={"accept-encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Questions that are open are `Unanswered`."""
        if self._session:
            await self._session.close()

    async def metrics(self, endpoint: Endpoint, path: str) -> Gauges | Unanswered:
        """The engine's Prometheus page, once: see `MetricsLooks`."""
        page = await self._ask("GET", endpoint, path, bounds.METRICS_BYTES, bounds.METRICS_S)
        return page if isinstance(page, Unanswered) else await metrics_page.read(page)

    async def models(self, endpoint: Endpoint) -> ServedModels | Unanswered:
        """`GET /v1/models`."""
        answer = await self._ask("GET", endpoint, "/v1/models", bounds.MODELS_BYTES, bounds.MODELS_S)
        return _read(models.parse, answer)

    async def event_sources(self, endpoint: Endpoint) -> Mapping[int, EventSource] | Unanswered:
        """`GET /kv_event_sources`: the publishers by data-parallel rank; empty where events are off."""
        limit, timeout_s = bounds.EVENT_SOURCES_BYTES, bounds.EVENT_SOURCES_S
        return _read(event_sources.parse, await self._ask("GET", endpoint, "/kv_event_sources", limit, timeout_s))

    async def version(self, endpoint: Endpoint) -> tuple[int, int] | Unanswered:
        """`GET /version`: the first two numbers of vLLM's release."""
        return _read(
            version.parse, await self._ask("GET", endpoint, "/version", bounds.VERSION_BYTES, bounds.VERSION_S)
        )

    async def tokenize(self, endpoint: Endpoint, question: bytes, timeout_s: float) -> "array[int] | Unanswered":
        """`POST /tokenize`: the ids. No more of them than the question can have."""
        return await self._token_ids(endpoint, "/tokenize", question, timeout_s)

    async def render(
        self, endpoint: Endpoint, path: str, request: bytes, timeout_s: float
    ) -> "array[int] | Unanswered":
        """The ids that the engine makes of a request of the API at `path`: `POST {path}/render`.

        Open in engines that were started with `--enable-scale-out`; others refuse with 403 or 404.
        """
        return await self._token_ids(endpoint, f"{path}/render", request, timeout_s)

    async def _token_ids(
        self, endpoint: Endpoint, path: str, question: bytes, timeout_s: float
    ) -> "array[int] | Unanswered":
        limit = bounds.answer_bytes_of(len(question))
        answer = await self._ask("POST", endpoint, path, limit, timeout_s, question)
        if isinstance(answer, Unanswered):
            return answer
        ids = await token_ids.parse(answer, bounds.tokens_of(len(question)))
        return Unanswered(Why.UNREADABLE, "token ids") if ids is None else ids

    async def _ask(
        self, method: str, endpoint: Endpoint, path: str, limit: int, timeout_s: float, body: bytes | None = None
    ) -> bytes | Unanswered:
        if self._session is None or self._session.closed:
            return Unanswered(Why.AWAY, "not asked")
        await in_task()
        try:
            async with self._session.request(
                method,
                f"http://{address_of(endpoint)}{path}",
                data=body,
                headers=_JSON if body is not None else None,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    return refused(response.status)
                if response.headers.get("content-encoding", "identity") != "identity":
                    return COMPRESSED
                answer = await read_at_most(response, limit)
                return too_long(limit) if answer is None else answer
        except TimeoutError:
            return slow(timeout_s)
        except Exception as error:
            # Any: what the HTTP library makes of a peer that speaks something else is not all of its own kind.
            return broken(error)


def _read(parse: Callable[[bytes], _T | None], answer: bytes | Unanswered) -> _T | Unanswered:
    if isinstance(answer, Unanswered):
        return answer
    value = parse(answer)
    return Unanswered(Why.UNREADABLE, "another form than expected") if value is None else value
