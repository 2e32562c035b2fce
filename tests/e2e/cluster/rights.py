"""Service accounts with just some rights, made as a namespace's administrator would."""

from typing import Any

from cluster.client import Namespace

EVERYTHING = ({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},)
RBAC = "rbac.authorization.k8s.io/v1"


async def account(home: Namespace) -> str:
    """A service account named `operator` without any right; returns a token of it."""
    await home.call("POST", home.path("serviceaccounts"), {"metadata": {"name": "operator"}})
    made = await home.call("POST", home.path("serviceaccounts", "operator") + "/token", {"spec": {}})
    return str(made["status"]["token"])


async def allow(where: Namespace, home: Namespace, rules: Any = EVERYTHING) -> None:
    """Give `home`'s service account these rights in a namespace, in the place of earlier ones."""
    role = {"apiVersion": RBAC, "kind": "Role", "metadata": {"name": "operator"}, "rules": list(rules)}
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": home.name}
    binding = {
        "apiVersion": RBAC,
        "kind": "RoleBinding",
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"},
        "subjects": [subject],
    }
    for plural, manifest in (("roles", role), ("rolebindings", binding)):
        path = where.path(plural, "operator", RBAC) + "?fieldManager=tests&force=true"
        await where.call("PATCH", path, manifest, "application/apply-patch+yaml")
