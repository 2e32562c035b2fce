"""A user finds the cause in one step of `kubectl describe`."""

from collections.abc import Callable
from typing import Any

import pytest
from cluster.client import Namespace, until

Running = Callable[..., Any]


async def message(namespace: Namespace, kind: str, name: str = "p") -> str:
    pool = await namespace.call("GET", namespace.pool_path(name))
    return next(str(one["message"]) for one in pool["status"]["conditions"] if one["type"] == kind)


async def existing(namespace: Namespace, name: str) -> None:
    manifest = {
        "apiVersion": "multipick.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": name},
        "spec": {"model": {"name": "m"}, "existingPods": {"matchLabels": {"app": "x"}}},
    }
    await namespace.call(
        "PATCH", namespace.pool_path(name) + "?fieldManager=tests", manifest, "application/apply-patch+yaml"
    )


async def test_existing_pods_that_are_not_there_are_named_by_their_labels(
    namespace: Namespace, running: Running
) -> None:
    async with running():
        await existing(namespace, "p")
        await namespace.reaches("Available", "False", "NoPods")
        assert f"no pod of namespace {namespace.name} has the labels app=x" in await message(namespace, "Ready")


async def test_two_pools_of_the_same_pods_name_each_other(namespace: Namespace, running: Running) -> None:
    pod = {"metadata": {"name": "mine", "labels": {"app": "x"}}, "spec": {"containers": [{"name": "v", "image": "i"}]}}
    await namespace.call("POST", namespace.path("pods"), pod)
    async with running(resync_s=0.5):
        await existing(namespace, "p")
        await namespace.reaches("Accepted", "True", "Accepted")
        await existing(namespace, "q")
        await namespace.reaches("Accepted", "False", "PodsShared")
        await namespace.reaches("Accepted", "False", "PodsShared", "q")
        assert "those of q" in await message(namespace, "Accepted")
        assert "those of p" in await message(namespace, "Accepted", "q")


async def test_no_template_learns_what_another_namespace_has(namespace: Namespace, running: Running) -> None:
    """The operator may read more than who writes the pool: a name that is a path must not be followed."""
    other = Namespace(namespace.server, f"{namespace.name}-other")
    await namespace.call("POST", "/api/v1/namespaces", {"metadata": {"name": other.name}})
    await namespace.call("POST", other.path("secrets"), {"metadata": {"name": "theirs"}})
    secret = {"secretName": f"../../{other.name}/secrets/theirs"}
    async with running():
        await namespace.apply(podTemplate={"spec": {"volumes": [{"name": "v", "secret": secret}]}})
        await namespace.reaches("ResolvedRefs", "False", "SecretNotFound")


@pytest.mark.parametrize(
    ("spec", "reason", "name", "made"),
    [
        ({"engine": {"imagePullSecrets": ["registry"]}}, "SecretNotFound", "Secret registry", "secrets"),
        (
            {"engine": {"envFrom": [{"configMapRef": {"name": "settings"}}]}},
            "ConfigMapNotFound",
            "ConfigMap settings",
            "configmaps",
        ),
        (
            {"podTemplate": {"spec": {"volumes": [{"name": "v", "configMap": {"name": "files"}}]}}},
            "ConfigMapNotFound",
            "ConfigMap files",
            "configmaps",
        ),
        (
            {"storage": {"cache": {"type": "ExistingClaim", "claimName": "weights"}}},
            "PVCNotFound",
            "PersistentVolumeClaim weights",
            "",
        ),
    ],
    ids=["pull secret", "configmap", "configmap of a template", "claim"],
)
async def test_what_is_missing_is_named_and_found_when_it_comes(
    namespace: Namespace, running: Running, spec: dict[str, Any], reason: str, name: str, made: str
) -> None:
    async with running():
        await namespace.apply(**spec)
        await namespace.reaches("ResolvedRefs", "False", reason)
        assert f"not found: {name}" in await message(namespace, "ResolvedRefs")
        events = await until(namespace.events, lambda found: "RefNotFound" in [one for one, _ in found])
        assert any(name in words for _, words in events)
        if made:
            await namespace.call("POST", namespace.path(made), {"metadata": {"name": name.split()[1]}})
            await namespace.reaches("ResolvedRefs", "True", "ResolvedRefs")
