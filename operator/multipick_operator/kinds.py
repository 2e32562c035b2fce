"""Which kinds the API server serves: CRDs of others may be missing, and may come or go at any time."""

import time
from collections.abc import Callable

from multipick_operator import kube
from multipick_operator.kube import BUILT_IN, ApiError, Kube


class Kinds:
    """Discovery, believed for `fresh_s` seconds. Invariant: `_known` has when asked and which kinds, by version."""

    def __init__(self, api: Kube, fresh_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._fresh_s = fresh_s
        self._clock = clock
        self._known: dict[str, tuple[float, frozenset[str]]] = {}

    async def serves(self, api_version: str, kind: str) -> bool:
        """Whether objects of this kind can be written. Raises ApiError where the API server can't say."""
        if api_version in BUILT_IN:
            return True
        asked, kinds = self._known.get(api_version, (float("-inf"), frozenset()))
        if self._clock() - asked > self._fresh_s:
            kinds = await self._ask(api_version)
            self._known[api_version] = (self._clock(), kinds)
        return kind in kinds

    async def _ask(self, api_version: str) -> frozenset[str]:
        try:
            found = await self._api.send(kube.resources(api_version))
        except ApiError as error:
            if error.status == 404:
                return frozenset()
            raise
        return frozenset(resource["kind"] for resource in found["resources"])
