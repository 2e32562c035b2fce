"""What a pool's spec names that must exist beside it."""

import time
from collections.abc import Callable
from typing import NamedTuple

from multipick_operator.api.pool import Pool
from multipick_operator.api.storage import CacheType
from multipick_operator.children import Ref
from multipick_operator.children.artifacts import claim_of
from multipick_operator.children.names import Manifest
from multipick_operator.cluster.view import View


class Reference(NamedTuple):
    """An object somebody else makes, by kind and name, and where."""

    ref: Ref
    namespace: str


class LookUps:
    """Remembers what was found, since nobody watches these: an answer is believed for a while."""

    def __init__(self, view: View, fresh_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._view = view
        self._fresh_s = fresh_s
        self._clock = clock
        self._known: dict[Reference, tuple[float, Manifest | None]] = {}

    @property
    def missing_s(self) -> float:
        """What was missing is looked for again after so long, since somebody may be waiting for it."""
        return self._fresh_s / 4

    async def find(self, reference: Reference) -> Manifest | None:
        """The object, None where there is none. Raises as `Kube` does."""
        if not self._view.serves(reference.ref, reference.namespace):
            return None
        asked, found = self._known.get(reference, (float("-inf"), None))
        if self._clock() - asked >= (self._fresh_s if found else self.missing_s):
            found = await self._view.ask(reference.ref, reference.namespace)
            self._known[reference] = (self._clock(), found)
        return found

    def forget(self, reference: Reference) -> None:
        """It was written: what is known is old."""
        self._known.pop(reference, None)


def references(pool: Pool) -> list[Reference]:
    """Secrets, claims and Gateways, each once, in the order in which the spec names them."""
    refs = [
        *(Reference(Ref("v1", "Secret", name), pool.namespace) for name in _secrets(pool)),
        *(Reference(Ref("v1", "PersistentVolumeClaim", name), pool.namespace) for name in _claims(pool)),
        *_gateways(pool),
    ]
    return list(dict.fromkeys(refs))


def picker_secret(pool: Pool) -> Ref | None:
    """The Secret of the user's that the pickers read; its version is part of their template."""
    index = pool.spec.index
    return Ref("v1", "Secret", index.password_secret_ref.name) if index and index.password_secret_ref else None


def _secrets(pool: Pool) -> list[str]:
    spec = pool.spec
    names = [spec.model.hf_token_secret_ref.name] if spec.model.hf_token_secret_ref else []
    names += [
        one.value_from.secret_key_ref.name
        for one in spec.engine.env
        if one.value_from and one.value_from.secret_key_ref and not one.value_from.secret_key_ref.optional
    ]
    names += [one.secret_ref.name for one in spec.engine.env_from if one.secret_ref and not one.secret_ref.optional]
    picker = picker_secret(pool)
    return [*names, *([picker.name] if picker else [])]


def _claims(pool: Pool) -> list[str]:
    spec = pool.spec
    uris = [spec.model.uri, spec.model.tokenizer_uri, *(one.uri for one in (spec.lora.adapters if spec.lora else ()))]
    names = [claim for uri in uris if (claim := claim_of(uri))]
    cache = spec.storage.cache
    return names + ([cache.claim_name] if cache.type is CacheType.EXISTING_CLAIM and cache.claim_name else [])


def _gateways(pool: Pool) -> list[Reference]:
    route = pool.spec.routing.gateway.http_route
    return [
        Reference(Ref("gateway.networking.k8s.io/v1", "Gateway", one.name), one.namespace or pool.namespace)
        for one in (route.parent_refs if route.create else ())
    ]
