"""Which endpoints a request may go to, and what its engine has to be told for that."""

from collections.abc import Collection
from itertools import filterfalse

from multipick_epp.decision.adapters import adapter_of
from multipick_epp.decision.prompts import Blind, Known
from multipick_epp.extproc.pick import PickRequest
from multipick_epp.pods.columns import Columns
from multipick_epp.pods.failures import Asked
from multipick_epp.pods.registry import Registry, names
from multipick_epp.requests.rank_header import heeds_rank
from multipick_epp.requests.stored import ResponseNames, with_name
from multipick_epp.types import Endpoint, address_of, rank_of

_OF_MODELS = frozenset({"POST", ""})
"""Methods by which models are asked; some gateways tell none. To a browser's OPTIONS engines say yes on any path."""


class Eligible:
    """The endpoints of a pool, as a request sees them. `models`: names of the base model; any other is an adapter's."""

    def __init__(self, registry: Registry, models: Collection[str], responses: ResponseNames) -> None:
        self._registry = registry
        self._models = frozenset(models)
        self._responses = responses

    def endpoints(self, request: PickRequest, prompt: Known | Blind) -> Columns:
        """The one that has what the request names, else those that have its adapter, else all that are ready."""
        if prompt.stored and prompt.stored.continues:
            has_it = self._responses.address_of(prompt.stored.continues, self._registry.addresses())
            if has_it is not None and (request.subset is None or names(request.subset, has_it)):
                there = self._registry.ready([has_it])
                if there.endpoints:
                    return there
        return self._registry.ready(request.subset, adapter_of(prompt.model, self._models))

    def undirected(self, path: str, ready: Columns) -> Collection[Endpoint]:
        """Of the ports with several ranks those whose engine chooses among them itself, for a request of this path."""
        return ready.ports if ready.ports and not heeds_rank(path) else [*filterfalse(self.obeys, ready.ports)]

    def obeys(self, address: Endpoint) -> bool:
        """Whether the engine there goes by the header that names a rank."""
        engine = self._registry.engine(address)
        return engine is None or engine.obeys

    def asked(self, method: str, prompt: Known | Blind) -> Asked:
        """What the request asks of an engine, for those who judge its failures."""
        if adapter_of(prompt.model, self._models) is not None:
            return Asked.OTHER_MODEL
        read = type(prompt) is Known or prompt.read
        return Asked.OWN_MODEL if read and method in _OF_MODELS else Asked.UNKNOWN

    def named(self, request: PickRequest, prompt: Known | Blind, endpoint: Endpoint) -> bytes | None:
        """The body in which a response that may be stored has a name that tells where."""
        if request.body is None or not (prompt.stored and prompt.stored.nameless):
            return None
        return with_name(request.body, self._responses.name(endpoint))


def rank_told(endpoint: Endpoint, undirected: Collection[Endpoint]) -> int | None:
    """The rank that a header names, for a request that goes there."""
    return None if address_of(endpoint) in undirected else rank_of(endpoint)
