"""kopf as the watcher: every change of a pool or of a pool's child only says which pool to look at.

Handlers of kind `event` make kopf write nothing: no finalizer, no annotation. It lists, watches, reconnects and starts
to watch kinds whose CRDs come later.
"""

from collections.abc import Callable, Mapping
from typing import Any

import kopf

from multipick_operator.api.crd import GROUP, PLURAL, VERSION
from multipick_operator.children.names import MANAGER, POOL_LABEL
from multipick_operator.reconcile import Key

# group, version, plural; all but pods carry our managed-by label
CHILDREN = (
    ("apps", "v1", "deployments"),
    ("", "v1", "services"),
    ("", "v1", "configmaps"),
    ("", "v1", "serviceaccounts"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("networking.k8s.io", "v1", "networkpolicies"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("rbac.authorization.k8s.io", "v1", "roles"),
    ("rbac.authorization.k8s.io", "v1", "rolebindings"),
    ("leaderworkerset.x-k8s.io", "v1", "leaderworkersets"),
    ("inference.networking.k8s.io", "v1", "inferencepools"),
    ("gateway.networking.k8s.io", "v1", "httproutes"),
    ("keda.sh", "v1alpha1", "scaledobjects"),
    ("monitoring.coreos.com", "v1", "podmonitors"),
)


def registry(add: Callable[[Key], None], gone: Callable[[Key], None], login: Callable[[], Any]) -> Any:
    """Handlers that call `add` with the key of a pool that something happened to, and `gone` with one deleted."""
    handlers = kopf.OperatorRegistry()

    async def authenticate(**_: Any) -> Any:
        return login()

    async def pool_changed(event: Mapping[str, Any], namespace: str | None, name: str, **_: Any) -> None:
        (gone if event["type"] == "DELETED" else add)((namespace or "", name))

    async def child_changed(namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
        if pool := labels.get(POOL_LABEL):
            add((namespace or "", pool))

    kopf.on.login(registry=handlers)(authenticate)
    kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)(pool_changed)
    kopf.on.event("", "v1", "pods", labels={POOL_LABEL: kopf.PRESENT}, registry=handlers)(child_changed)
    for group, version, plural in CHILDREN:
        kopf.on.event(group, version, plural, labels={POOL_LABEL: kopf.PRESENT}, registry=handlers)(child_changed)
    return handlers


def settings(namespaces: tuple[str, ...], pool_selector: str | None) -> Any:
    """kopf's settings: filters that the API server applies, timeouts against silent stalls, nothing written."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.watching.server_timeout = 270
    chosen.watching.client_timeout = 300
    chosen.watching.connect_timeout = 10
    chosen.networking.request_timeout = 30
    # a Role can't list CRDs or namespaces, so an operator of some namespaces looks at kinds only once, at start
    chosen.scanning.disabled = bool(namespaces)
    for child in CHILDREN:
        chosen.watching.label_selectors[child] = f"app.kubernetes.io/managed-by={MANAGER}"
    chosen.watching.label_selectors["", "v1", "pods"] = POOL_LABEL
    if pool_selector:
        chosen.watching.label_selectors[GROUP, VERSION, PLURAL] = pool_selector
    return chosen
