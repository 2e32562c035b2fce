"""What a pool's spec names that must exist beside it. Pure."""

from typing import NamedTuple

from multipick_operator.api.engine import CacheType
from multipick_operator.api.pool import Pool
from multipick_operator.children import Ref
from multipick_operator.children.artifacts import claim_of


class Reference(NamedTuple):
    """An object somebody else makes, by kind and name, and where."""

    ref: Ref
    namespace: str


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
