"""The operator against a real API server, whose own controllers make ReplicaSets and pods and collect garbage.

There is no kubelet: what pods come to is written into their status by the tests.
"""

from collections.abc import Callable
from typing import Any

import pytest
from cluster.client import Namespace, until
from multipick_operator.app import Operator, Settings

Running = Callable[..., Any]


async def engine(namespace: Namespace) -> Any:
    return await namespace.find(namespace.path("deployments", "p-engine", "apps/v1"))


async def made(namespace: Namespace) -> Any:
    """The engines' Deployment, as soon as it is there."""
    return await until(lambda: engine(namespace))


async def pods(namespace: Namespace, role: str = "engine") -> Any:
    selector = f"multipick.dev/pool=p,multipick.dev/role={role}"
    found = await namespace.call("GET", namespace.path("pods") + f"?labelSelector={selector}")
    return [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]


async def set_pods(namespace: Namespace, role: str, status: dict[str, Any], count: int = 1) -> None:
    """What a kubelet would say of the pods of a role."""
    found = await until(lambda: pods(namespace, role), lambda found: len(found) >= count)
    for pod in found[:count]:
        await namespace.patch(namespace.path("pods", pod["metadata"]["name"]) + "/status", {"status": status})


READY = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T08:00:00Z"}],
    "containerStatuses": [
        {"name": "engine", "image": "i", "imageID": "i", "ready": True, "restartCount": 0, "state": {"running": {}}}
    ],
}


def container(**status: Any) -> dict[str, Any]:
    return {"name": "engine", "image": "img", "imageID": "", "ready": False, "restartCount": 0} | status


async def test_a_pool_becomes_its_children_and_carries_no_mark_itself(namespace: Namespace, running: Running) -> None:
    async with running():
        await namespace.apply()
        await made(namespace)
        found = await until(namespace.children, lambda found: ("poddisruptionbudgets", "p-engine") in found)
        assert {
            ("deployments", "p-engine"),
            ("deployments", "p-epp"),
            ("services", "p-engine"),
            ("services", "p-epp"),
            ("services", "p-epp-pods"),
            ("serviceaccounts", "p-engine"),
            ("serviceaccounts", "p-epp"),
            ("roles", "p-epp"),
            ("rolebindings", "p-epp"),
            ("poddisruptionbudgets", "p-epp"),
            ("poddisruptionbudgets", "p-engine"),
        } <= set(found)
        assert [name[:6] for plural, name in found if plural == "configmaps"] == ["p-epp-"]
        pool = await namespace.call("GET", namespace.pool_path())
    for child in found.values():
        assert [owner["uid"] for owner in child["metadata"]["ownerReferences"]] == [pool["metadata"]["uid"]]
    assert "finalizers" not in pool["metadata"]
    assert "annotations" not in pool["metadata"]


async def test_nothing_is_written_where_nothing_changed(namespace: Namespace, running: Running) -> None:
    async with running(resync_s=0.2) as operator:
        await namespace.apply()
        await made(namespace)
        await namespace.reaches("Available", "False", "NoReadyReplicas")

        async def quiet() -> bool:
            """Three reconciles without an apply."""
            done, applied = total(operator, "reconcile"), total(operator, "apply")

            async def reconciles() -> float:
                return total(operator, "reconcile")

            await until(reconciles, lambda count: count >= done + 3)
            return total(operator, "apply") == applied

        async def versions() -> object:
            """Of all that the operator could write to."""
            children = {key: one["metadata"]["resourceVersion"] for key, one in (await namespace.children()).items()}
            pool = (await namespace.call("GET", namespace.pool_path()))["metadata"]["resourceVersion"]
            return children, pool, await namespace.events()

        async def unchanged() -> bool:
            """Not by the cluster's own controllers either, which may still tell of what was made."""
            before = await versions()
            return await quiet() and await versions() == before

        await until(unchanged)


def total(operator: Operator, counter: str) -> float:
    """A counter over all of its labels."""
    samples = [sample for family in operator.metrics.registry.collect() for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == f"multipick_operator_{counter}_total")


async def test_kubectl_scale_moves_the_engines(namespace: Namespace, running: Running) -> None:
    async with running():
        await namespace.apply(replicas=2)
        await made(namespace)
        await namespace.patch(namespace.pool_path() + "/scale", {"spec": {"replicas": 4}})
        await until(lambda: pods(namespace), lambda found: len(found) == 4)
        await namespace.patch(namespace.pool_path() + "/scale", {"spec": {"replicas": 1}})
        await until(lambda: pods(namespace), lambda found: len(found) == 1)
        scale = await until(
            lambda: namespace.call("GET", namespace.pool_path() + "/scale"),
            lambda found: found["status"]["replicas"] == 1,
        )
        assert scale["status"]["selector"] == "multipick.dev/pool=p,multipick.dev/role=engine"
        reasons = [reason for reason, _ in await namespace.events()]
        assert reasons.count("ScaledUp") == 1
        assert reasons.count("ScaledDown") == 1


async def test_a_changed_argument_rolls_the_engines_and_not_the_pickers(namespace: Namespace, running: Running) -> None:
    async with running():
        await namespace.apply()
        await made(namespace)
        await namespace.reaches("Progressing", "True", "RolloutInProgress")
        await set_pods(namespace, "engine", READY)
        await set_pods(namespace, "picker", READY)
        await namespace.reaches("Progressing", "True", "RolloutComplete")
        picker = await namespace.find(namespace.path("deployments", "p-epp", "apps/v1"))
        await namespace.apply(engine={"args": ["--max-num-seqs", "8"]})
        await namespace.reaches("Progressing", "True", "RolloutInProgress")
        after = await engine(namespace)
        assert after["spec"]["template"]["spec"]["containers"][0]["args"][-2:] == ["--max-num-seqs", "8"]
        same = await namespace.find(namespace.path("deployments", "p-epp", "apps/v1"))
        assert same["metadata"]["generation"] == picker["metadata"]["generation"]
        await until(namespace.events, lambda found: "RolloutStarted" in [reason for reason, _ in found])


async def test_what_others_change_is_put_right_and_what_they_add_is_left(
    namespace: Namespace, running: Running
) -> None:
    path = namespace.path("deployments", "p-engine", "apps/v1")
    async with running():
        await namespace.apply()
        first = await made(namespace)
        await namespace.patch(
            path,
            {
                "metadata": {"annotations": {"team": "x"}},
                "spec": {"template": {"spec": {"enableServiceLinks": True}}},
            },
        )
        repaired = await until(
            lambda: engine(namespace),
            lambda found: not found["spec"]["template"]["spec"]["enableServiceLinks"],
        )
        assert repaired["metadata"]["annotations"]["team"] == "x"
        await namespace.call("DELETE", path)
        await until(
            lambda: engine(namespace), lambda found: found and found["metadata"]["uid"] != first["metadata"]["uid"]
        )


async def test_a_label_that_somebody_takes_away_is_put_back_at_once(namespace: Namespace, running: Running) -> None:
    service = namespace.path("services", "p-epp")
    async with running(resync_s=1000.0):
        await namespace.apply()
        await namespace.reaches("Available", "False", "NoReadyReplicas")
        labels = (await namespace.find(service))["metadata"]["labels"]
        for label in ("multipick.dev/pool", "app.kubernetes.io/managed-by"):
            await namespace.patch(service, {"metadata": {"labels": {label: None}}})
            await until(lambda: namespace.find(service), lambda found: found["metadata"].get("labels") == labels)


async def test_a_section_that_goes_takes_its_child_along(namespace: Namespace, running: Running) -> None:
    async with running():
        await namespace.apply(autoscaling={"maxReplicas": 3}, networkPolicy={"enabled": True})
        scaler = ("horizontalpodautoscalers", "p-engine")
        await until(namespace.children, lambda found: {scaler, ("networkpolicies", "p-epp")} <= set(found))
        await namespace.apply(disruption={"enabled": False})
        gone = {scaler, ("networkpolicies", "p-epp"), ("poddisruptionbudgets", "p-engine")}
        left = await until(namespace.children, lambda found: not gone & set(found))
        assert ("poddisruptionbudgets", "p-epp") in left


async def test_deletion_leaves_nothing(namespace: Namespace, running: Running) -> None:
    async with running():
        await namespace.apply(storage={"cache": {"type": "PVC", "retention": "Delete"}})
        await until(namespace.children, lambda found: ("persistentvolumeclaims", "p-cache") in found)
        await namespace.call("DELETE", namespace.pool_path())
        await until(namespace.children, lambda found: not found)


async def test_a_pool_whose_pods_serve_is_ready(namespace: Namespace, running: Running) -> None:
    async with running():
        await namespace.apply(replicas=2)
        await made(namespace)
        await set_pods(namespace, "engine", READY, count=2)
        await namespace.reaches("Available", "True", "MinimumReplicasAvailable")
        await namespace.reaches("Ready", "False", "NoReadyReplicas")
        await set_pods(namespace, "picker", READY)
        await namespace.reaches("Ready", "True", "Serving")
        pool = await namespace.call("GET", namespace.pool_path())
        assert pool["status"]["readyReplicas"] == 2
        assert pool["status"]["picker"]["readyReplicas"] == 1
        assert pool["status"]["currentRevision"] == pool["status"]["updateRevision"] != ""
        await until(namespace.events, lambda found: {"Ready", "RolloutComplete"} <= {reason for reason, _ in found})


@pytest.mark.parametrize(
    ("status", "reason", "event", "words"),
    [
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "Insufficient nvidia.com/gpu"}]},
            "InsufficientCapacity",
            "InsufficientCapacity",
            "Insufficient nvidia.com/gpu",
        ),
        (
            {
                "containerStatuses": [
                    container(state={"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}})
                ]
            },
            "ImagePullFailed",
            "ImagePullFailed",
            "manifest unknown",
        ),
        (
            {
                "containerStatuses": [
                    container(
                        restartCount=3,
                        state={"waiting": {"reason": "CrashLoopBackOff"}},
                        lastState={"terminated": {"exitCode": 1, "message": "CUDA out of memory"}},
                    )
                ]
            },
            "CrashLoop",
            "ModelLoadFailed",
            "CUDA out of memory",
        ),
        (
            {
                "containerStatuses": [
                    container(state={"waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}})
                ]
            },
            "ConfigurationError",
            "ModelLoadFailed",
            "no secret",
        ),
    ],
    ids=["capacity", "image", "crash", "secret"],
)
async def test_a_sick_pod_s_cause_is_told_and_the_others_go_on(
    namespace: Namespace, running: Running, status: dict[str, Any], reason: str, event: str, words: str
) -> None:
    async with running():
        await namespace.apply(replicas=2)
        await made(namespace)
        await set_pods(namespace, "engine", status, count=2)
        await namespace.reaches("Available", "False", reason)
        await set_pods(namespace, "engine", READY, count=1)
        await namespace.reaches("Available", "True", "MinimumReplicasAvailable")
        await namespace.reaches("Progressing", "False", reason)
        told = await until(namespace.events, lambda found: event in [one for one, _ in found])
        assert any(words in message for one, message in told if one == event)
        assert [one for one, _ in told].count(event) == 1


async def test_a_loading_engine_is_said_to_load(namespace: Namespace, running: Running) -> None:
    async with running():
        await namespace.apply()
        await made(namespace)
        await set_pods(namespace, "engine", {"containerStatuses": [container(started=False, state={"running": {}})]})
        await namespace.reaches("Available", "False", "LoadingModel")
        await namespace.apply(replicas=0)
        await namespace.reaches("Available", "False", "ScaledToZero")


async def test_what_the_spec_names_must_exist(namespace: Namespace, running: Running) -> None:
    async with running():
        await namespace.apply(model={"uri": "pvc://weights/m", "hfTokenSecretRef": {"name": "hf"}})
        await namespace.reaches("ResolvedRefs", "False", "SecretNotFound")
        await namespace.call(
            "POST", namespace.path("secrets"), {"metadata": {"name": "hf"}, "stringData": {"token": "x"}}
        )
        await namespace.reaches("ResolvedRefs", "False", "PVCNotFound")
        claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        await namespace.call(
            "POST", namespace.path("persistentvolumeclaims"), {"metadata": {"name": "weights"}, "spec": claim}
        )
        await namespace.reaches("ResolvedRefs", "True", "ResolvedRefs")
        await until(namespace.events, lambda found: "RefNotFound" in [reason for reason, _ in found])


async def test_a_rotated_password_rolls_the_pickers(namespace: Namespace, running: Running) -> None:
    secret = {"metadata": {"name": "redis"}, "stringData": {"password": "one"}}
    await namespace.call("POST", namespace.path("secrets"), secret)

    async def stamp() -> Any:
        picker = await namespace.find(namespace.path("deployments", "p-epp", "apps/v1"))
        return picker and picker["spec"]["template"]["metadata"]["annotations"]["multipick.dev/secrets"]

    async with running():
        index = {"url": "redis://r:6379", "passwordSecretRef": {"name": "redis", "key": "password"}}
        await namespace.apply(index=index)
        before = await until(stamp)
        await namespace.patch(namespace.path("secrets", "redis"), {"stringData": {"password": "two"}})
        await until(stamp, lambda found: found != before)


async def test_a_password_that_is_away_for_a_moment_rolls_no_picker(namespace: Namespace, running: Running) -> None:
    secret = {"metadata": {"name": "redis"}, "stringData": {"password": "one"}}
    await namespace.call("POST", namespace.path("secrets"), secret)
    picker = namespace.path("deployments", "p-epp", "apps/v1")
    async with running():
        await namespace.apply(
            index={"url": "redis://r:6379", "passwordSecretRef": {"name": "redis", "key": "password"}}
        )
        before = await until(lambda: namespace.find(picker))
        await namespace.call("DELETE", namespace.path("secrets", "redis"))
        await namespace.reaches("ResolvedRefs", "False", "SecretNotFound")
        assert (await namespace.find(picker))["spec"]["template"] == before["spec"]["template"]


async def test_what_the_api_server_refuses_is_told_in_its_words(namespace: Namespace, running: Running) -> None:
    async with running():
        await namespace.apply(podTemplate={"spec": {"restartPolicy": "Never"}})
        await namespace.reaches("Accepted", "False", "InvalidSpec")
        pool = await namespace.call("GET", namespace.pool_path())
        accepted = next(one for one in pool["status"]["conditions"] if one["type"] == "Accepted")
        assert "restartPolicy" in accepted["message"]
        assert ("services", "p-engine") in await namespace.children()
        await namespace.apply()
        await namespace.reaches("Accepted", "True", "Accepted")


async def test_somebody_elses_object_is_not_taken_over(namespace: Namespace, running: Running) -> None:
    path = namespace.path("serviceaccounts", "p-epp")
    theirs = {"metadata": {"name": "p-epp", "annotations": {"whose": "theirs"}}}
    await namespace.call("POST", namespace.path("serviceaccounts"), theirs)
    async with running():
        await namespace.apply()
        await namespace.reaches("Accepted", "False", "NameTaken")
        assert (await namespace.find(path))["metadata"]["annotations"] == {"whose": "theirs"}


async def test_existing_pods_get_a_picker(namespace: Namespace, running: Running) -> None:
    pod = {
        "metadata": {"name": "mine", "labels": {"app": "x"}},
        "spec": {"containers": [{"name": "vllm", "image": "i"}]},
    }
    await namespace.call("POST", namespace.path("pods"), pod)
    async with running():
        await namespace.apply(existingPods={"matchLabels": {"app": "x"}}, model={"name": "m"})
        await set_pods(namespace, "picker", READY)
        await namespace.patch(namespace.path("pods", "mine") + "/status", {"status": READY})
        await namespace.reaches("Ready", "True", "Serving")
        found = await namespace.children()
        assert ("deployments", "p-engine") not in found
        assert found["services", "p-engine"]["spec"]["selector"] == {"app": "x"}


async def test_a_suspended_pool_is_left_alone(namespace: Namespace, running: Running) -> None:
    async with running():
        await namespace.apply()
        await made(namespace)
        await namespace.apply(replicas=5, suspend=True)
        await namespace.reaches("Progressing", "False", "Paused")
        assert (await engine(namespace))["spec"]["replicas"] == 1
        await namespace.apply(replicas=5)
        await until(lambda: engine(namespace), lambda found: found["spec"]["replicas"] == 5)


async def test_a_new_operator_changes_no_engine(namespace: Namespace, running: Running, settings: Settings) -> None:
    async with running():
        await namespace.apply()
        await made(namespace)
        await namespace.reaches("Progressing", "True", "RolloutInProgress")
        before = await until(lambda: engine(namespace), lambda found: found.get("status", {}).get("replicas"))
        events = await namespace.events()
    images = dict.fromkeys(settings.defaults.engine_images, "example.com/new:2")
    defaults = type(settings.defaults)(picker_image="example.com/multipick:2", engine_images=images)
    async with running(identity="two", defaults=defaults):
        await namespace.apply("fresh")
        fresh = await until(lambda: namespace.find(namespace.path("deployments", "fresh-engine", "apps/v1")))
        assert fresh["spec"]["template"]["spec"]["containers"][0]["image"] == "example.com/new:2"
        picker = namespace.path("deployments", "p-epp", "apps/v1")
        await until(
            lambda: namespace.find(picker),
            lambda found: found["spec"]["template"]["spec"]["containers"][0]["image"] == "example.com/multipick:2",
        )
        after = await engine(namespace)
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        told = (await namespace.events())[len(events) :]
        assert "RolloutStarted" not in [reason for reason, _ in told]


async def test_pickers_and_simulated_engines_run_where_pods_are_restricted(
    namespace: Namespace, running: Running
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    await namespace.patch(f"/api/v1/namespaces/{namespace.name}", {"metadata": {"labels": labels}})
    async with running():
        await namespace.apply(engine={"type": "Simulated"})
        await until(lambda: pods(namespace, "engine"))
        await until(lambda: pods(namespace, "picker"))


async def test_an_operator_keeps_to_its_namespaces(namespace: Namespace, running: Running, settings: Settings) -> None:
    other = Namespace(namespace.server, f"{namespace.name}-other")
    await namespace.call("POST", "/api/v1/namespaces", {"metadata": {"name": other.name}})
    await other.apply()
    async with running():
        await namespace.apply()
        await made(namespace)
        assert await other.children() == {}
    async with running(namespaces=(), identity="everywhere"):
        await made(other)


async def test_an_operator_of_labelled_pools_leaves_the_others(namespace: Namespace, running: Running) -> None:
    await namespace.apply("theirs")
    await namespace.apply()
    await namespace.patch(namespace.pool_path(), {"metadata": {"labels": {"tier": "gold"}}})
    async with running(pool_selector="tier=gold"):
        await made(namespace)
        assert {name for _, name in await namespace.children() if name.startswith("theirs")} == set()
