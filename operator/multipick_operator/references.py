"""What a pool's spec names that must exist beside it."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from multipick_operator.api.nesting import fields_within
from multipick_operator.api.pool import Pool
from multipick_operator.api.storage import CacheType
from multipick_operator.children import Ref
from multipick_operator.children.artifacts import claim_of
from multipick_operator.children.names import Manifest
from multipick_operator.cluster.view import View

MAX_KNOWN = 256  # what one spec can name is far less


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

    async def find(self, reference: Reference, awaited: bool = True) -> Manifest | None:
        """The object, None where there is none; `awaited`: somebody may be about to make it. Raises as `Kube` does."""
        if not self._view.serves(reference.ref, reference.namespace):
            return None
        asked, found = self._known.get(reference, (float("-inf"), None))
        if self._clock() - asked >= (self.missing_s if awaited and not found else self._fresh_s):
            if len(self._known) > MAX_KNOWN:  # of specs of before
                self._known.clear()
            found = await self._view.ask(reference.ref, reference.namespace)
            self._known[reference] = (self._clock(), found)
        return found

    def forget(self, reference: Reference) -> None:
        """It was written: what is known is old."""
        self._known.pop(reference, None)


def references(pool: Pool) -> list[Reference]:
    """Secrets, ConfigMaps, claims and Gateways, each once."""
    named = {
        "Secret": _secrets(pool),
        "ConfigMap": _config_maps(pool),
        "PersistentVolumeClaim": _claims(pool),
    }
    for template in (pool.spec.pod_template, pool.spec.routing.picker.pod_template):
        for kind, name in _named(template):
            named[kind].append(name)
    refs = [
        *(Reference(Ref("v1", kind, name), pool.namespace) for kind, names in named.items() for name in names),
        *_gateways(pool),
    ]
    return list(dict.fromkeys(refs))


# field of a pod template -> the kind that it names, and the field of the name where it isn't `name`
_FIELDS = {
    "secretKeyRef": ("Secret", "name"),
    "secretRef": ("Secret", "name"),
    "secret": ("Secret", "secretName"),
    "imagePullSecrets": ("Secret", "name"),
    "configMapKeyRef": ("ConfigMap", "name"),
    "configMapRef": ("ConfigMap", "name"),
    "configMap": ("ConfigMap", "name"),
    "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
}


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
    if (fetch := spec.storage.fetch) and fetch.secret_name:
        names.append(fetch.secret_name)
    picker = picker_secret(pool)
    pull = [*spec.engine.image_pull_secrets, *spec.routing.picker.image_pull_secrets]
    return [*names, *([picker.name] if picker else []), *pull]


def _config_maps(pool: Pool) -> list[str]:
    engine = pool.spec.engine
    keys = [one.value_from.config_map_key_ref for one in engine.env if one.value_from]
    whole = [one.config_map_ref for one in engine.env_from]
    return [one.name for one in (*keys, *whole) if one and not one.optional]


def _named(node: object) -> Iterator[tuple[str, str]]:
    """Kind and name of what a pod template refers to and can't do without."""
    for field, value in fields_within(node):
        for one in value if field == "imagePullSecrets" and isinstance(value, list) else [value]:
            kind, key = _FIELDS.get(field, ("", ""))
            if kind and isinstance(one, dict) and not one.get("optional"):
                name = one.get(key, one.get("name"))
                if isinstance(name, str) and name:
                    yield kind, name


def _claims(pool: Pool) -> list[str]:
    spec = pool.spec
    uris = [spec.model.uri, spec.model.tokenizer_uri, *(one.uri for one in (spec.lora.adapters if spec.lora else ()))]
    names = [claim for uri in uris if (claim := claim_of(uri))]
    if (capture := spec.routing.picker.capture) and capture.claim_name:
        names.append(capture.claim_name)
    cache = spec.storage.cache
    return names + ([cache.claim_name] if cache.type is CacheType.EXISTING_CLAIM and cache.claim_name else [])


def _gateways(pool: Pool) -> list[Reference]:
    route = pool.spec.routing.gateway.http_route
    return [
        Reference(Ref("gateway.networking.k8s.io/v1", "Gateway", one.name), one.namespace or pool.namespace)
        for one in (route.parent_refs if route.create else ())
    ]
