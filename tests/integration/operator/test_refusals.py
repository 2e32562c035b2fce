"""Whatever keeps a pool from being made shows on the pool, in the API server's words, with an Event."""

from collections.abc import Callable
from typing import Any

import pytest
from cluster.client import Namespace, until
from multipick_operator.cluster.client import ApiError
from multipick_operator.cluster.writes import Writes

Running = Callable[..., Any]
ENGINE = {"name": "engine"}


async def message(namespace: Namespace, kind: str) -> str:
    pool = await namespace.call("GET", namespace.pool_path())
    return next(str(one["message"]) for one in pool["status"]["conditions"] if one["type"] == kind)


async def told(namespace: Namespace, reason: str) -> str:
    found = await until(namespace.events, lambda events: reason in [one for one, _ in events])
    return next(str(words) for one, words in found if one == reason)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"spec": {"nodeSelectors": {"a": "b"}}}, "nodeSelectors"),
        ({"spec": {"containers": [{"image": "x"}]}}, "podTemplate.spec.containers[0]: needs name"),
        ({"spec": {"containers": [ENGINE | {"resources": {"limits": {"memory": "lots"}}}]}}, "quantities must match"),
        ({"spec": {"containers": [ENGINE | {"resources": {"limits": {"memory": "64GB"}}}]}}, "quantit"),
        ({"spec": {"containers": [ENGINE | {"args": [1]}]}}, "args"),
        ({"spec": {"terminationGracePeriodSeconds": "long"}}, "terminationGracePeriodSeconds"),
        ({"spec": {"restartPolicy": "Never"}}, "restartPolicy"),
        ({"spec": {"containers": [{"name": "Sidecar!", "image": "x"}]}}, "Sidecar!"),
        ({"metadata": {"labels": {"a": "not a label!"}}}, "not a label!"),
        ({"spec": None}, "spec"),
        ({"spec": {"containers": [ENGINE | {"ports": [{"containerPort": 70000}]}]}}, "containerPort"),
        ({"spec": {"containers": [ENGINE | {"env": [{"name": "A", "value": 1}]}]}}, "value"),
        ({"spec": {"volumes": [{"name": "shm", "hostPath": "/x"}]}}, "hostPath"),
        ({"spec": {"tolerations": {"key": "a"}}}, "tolerations"),
        ({"spec": {"containers": None}}, "containers"),
        ({"spec": {"containers": [ENGINE | {"$patch": "replace"}]}}, "$patch"),
        ({"metadata": {"annotations": "none"}}, "annotations"),
        ({"kind": "Pod"}, "kind"),
        ({"spec": []}, "podTemplate.spec: must be an object"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
async def test_a_template_that_nobody_can_use_is_refused_in_words_and_the_pool_goes_on(
    namespace: Namespace, running: Running, template: dict[str, Any], words: str
) -> None:
    async with running():
        await namespace.apply(replicas=2)
        await until(lambda: namespace.find(namespace.path("deployments", "p-engine", "apps/v1")))
        await namespace.reaches("Accepted", "True", "Accepted")
        await namespace.apply(replicas=2, podTemplate=template, model={"uri": "hf://org/m", "aliases": ["new"]})
        await namespace.reaches("Accepted", "False", "InvalidSpec")
        assert words in await message(namespace, "Accepted")
        assert words in await told(namespace, "InvalidSpec")
        pool = await namespace.call("GET", namespace.pool_path())
        assert pool["status"]["observedGeneration"] == pool["metadata"]["generation"]
        await namespace.apply(replicas=2)
        await namespace.reaches("Accepted", "True", "Accepted")


async def test_a_pool_that_serves_is_ready_whatever_is_wrong_with_its_next_version(
    namespace: Namespace, running: Running, serve: Callable[[int], Any]
) -> None:
    async with running():
        await namespace.apply(replicas=2)
        await serve(2)
        await namespace.reaches("Ready", "True", "Serving")
        await namespace.apply(replicas=2, podTemplate={"spec": {"nodeSelectors": {}}})
        await namespace.reaches("Accepted", "False", "InvalidSpec")
        await namespace.reaches("Ready", "True", "Serving")


async def test_a_pool_whose_spec_can_not_even_be_made_is_ready_no_longer_than_it_serves(
    namespace: Namespace, running: Running, serve: Callable[[int], Any]
) -> None:
    endless = {"spec": {"containers": [ENGINE | {"resources": {"limits": {"memory": "1e9999999999"}}}]}}
    async with running():
        await namespace.apply()
        await serve(1)
        await namespace.reaches("Ready", "True", "Serving")
        await namespace.apply(podTemplate=endless)
        await namespace.reaches("Accepted", "False", "InvalidSpec")
        await namespace.reaches("Ready", "True", "Serving")
        await namespace.call("DELETE", namespace.path("pods") + "?labelSelector=multipick.dev/role=engine")
        await namespace.reaches("Ready", "False", "InvalidSpec")
        await namespace.reaches("Available", "False", "NoReadyReplicas")


async def test_events_that_nobody_takes_cost_no_pool_anything(
    namespace: Namespace, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large clusters keep Events in an etcd of their own, which may hang alone."""

    async def hang(*_: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(Writes, "event", hang)
    async with running() as operator:
        await namespace.apply()
        await namespace.reaches("Accepted", "True", "Accepted")
        await until(lambda: namespace.find(namespace.path("deployments", "p-engine", "apps/v1")))
    assert operator.metrics.registry.get_sample_value("multipick_operator_reconcile_total", {"result": "ok"})


async def test_a_number_of_replicas_that_a_webhook_refuses_with_a_conflict_is_told(
    namespace: Namespace, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*about: Any) -> None:
        raise ApiError(409, "Conflict", 'admission webhook "quota.example.com" denied the request: too many')

    monkeypatch.setattr(Writes, "replicas", refuse)
    async with running():
        await namespace.apply(autoscaling={"minReplicas": 3, "maxReplicas": 8})
        await namespace.reaches("Accepted", "False", "Conflict")
        assert "replicas not written" in (words := await message(namespace, "Accepted"))
        assert "quota.example.com" in words


POD_SECURITY = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
NO_PODS = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"pod security": True}, "violates PodSecurity"),
        ({"quota": True}, "exceeded quota: none"),
        ({"serviceAccount": {"name": "absent"}}, 'serviceaccount "absent" not found'),
        ({"scheduling": {"priorityClassName": "absent"}}, "no PriorityClass with name absent"),
        ({"resources": {"runtimeClassName": "absent"}}, "absent"),
    ],
    ids=["pod security", "quota", "service account", "priority class", "runtime class"],
)
async def test_pods_that_can_not_be_made_are_the_pools_trouble(
    namespace: Namespace, running: Running, spec: dict[str, Any], words: str
) -> None:
    if spec.pop("pod security", False):
        await namespace.patch(f"/api/v1/namespaces/{namespace.name}", POD_SECURITY)
    if spec.pop("quota", False):
        await namespace.call("POST", namespace.path("resourcequotas"), NO_PODS)
    async with running():
        await namespace.apply(**spec)
        await namespace.reaches("Available", "False", "PodsNotCreated")
        assert words in await message(namespace, "Available")
        await namespace.reaches("Progressing", "False", "PodsNotCreated")
        await namespace.reaches("Ready", "False", "PodsNotCreated")
        assert words in await told(namespace, "PodsNotCreated")


async def test_a_webhook_that_does_not_answer_is_not_the_specs_fault_and_is_got_over(
    namespace: Namespace, running: Running
) -> None:
    """As of a policy engine that is down."""
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["*"]}
    hook = {
        "name": "policy.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/validate"},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    await namespace.call("POST", hooks, {"metadata": {"name": namespace.name}, "webhooks": [hook]})
    try:
        async with running():
            await namespace.apply()
            await namespace.reaches("Accepted", "False", "ServerError")
            assert "failed calling webhook" in await message(namespace, "Accepted")
            assert ("services", "p-engine") in await namespace.children()
            await namespace.call("DELETE", f"{hooks}/{namespace.name}")
            await namespace.reaches("Accepted", "True", "Accepted", patience_s=60)
    finally:
        if await namespace.find(f"{hooks}/{namespace.name}"):
            await namespace.call("DELETE", f"{hooks}/{namespace.name}")


async def test_a_quota_of_objects_is_told_and_kept_to_until_it_is_lifted(
    namespace: Namespace, running: Running
) -> None:
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"count/services": "1"}}}
    await namespace.call("POST", namespace.path("resourcequotas"), quota)
    path = namespace.path("resourcequotas", "few")
    await until(lambda: namespace.find(path), lambda found: found.get("status", {}).get("hard"))
    async with running():
        await namespace.apply()
        await namespace.reaches("Accepted", "False", "Forbidden")
        assert "exceeded quota: few" in await message(namespace, "Accepted")
        await until(lambda: namespace.find(namespace.path("deployments", "p-engine", "apps/v1")))
        await namespace.call("DELETE", path)
        await namespace.apply(replicas=2)
        await namespace.reaches("Accepted", "True", "Accepted")


async def test_a_pool_that_is_made_anew_waits_for_the_earlier_ones_children_to_go(
    namespace: Namespace, running: Running
) -> None:
    state = {
        "state_url": "redis://r:6379",
        "state_password": "pw",
    }  # so that the pool has a Secret, which nobody watches
    async with running(defaults_changes=state, resync_s=1000.0):
        await namespace.apply()
        await namespace.reaches("Accepted", "True", "Accepted")
        await namespace.call("DELETE", namespace.pool_path())
        made = await namespace.apply()
        await namespace.reaches("Accepted", "True", "Accepted")

        async def owners() -> set[str]:
            found = await namespace.children()
            return {owner["uid"] for one in found.values() for owner in one["metadata"]["ownerReferences"]}

        await until(owners, lambda found: found == {made["metadata"]["uid"]})
        assert "exists and is not this pool's" not in str(await namespace.events())


async def test_children_that_a_deleted_pool_left_behind_are_taken_over(namespace: Namespace, running: Running) -> None:
    path = namespace.path("deployments", "p-engine", "apps/v1")
    async with running():
        await namespace.apply()
        first = await until(lambda: namespace.find(path))
        await namespace.call("DELETE", namespace.pool_path(), {"propagationPolicy": "Orphan"})
        await until(lambda: namespace.find(namespace.pool_path()), lambda found: found is None)
        await until(lambda: namespace.find(path), lambda found: not found["metadata"].get("ownerReferences"))
        made = await namespace.apply()
        owned = await until(lambda: namespace.find(path), lambda found: found["metadata"].get("ownerReferences"))
        assert owned["metadata"]["uid"] == first["metadata"]["uid"]
        assert owned["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
        await namespace.reaches("Accepted", "True", "Accepted")
