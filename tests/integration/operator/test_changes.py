"""Changes of a pool that serves: what is addressed stays addressed until it is gone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from cluster.client import Namespace, until
from multipick_operator.app import Settings
from multipick_operator.cluster.writes import Writes

Running = Callable[..., Any]
Serve = Callable[[int], Any]
FAILING = {
    "phase": "Pending",
    "containerStatuses": [
        {
            "name": "picker",
            "image": "example.com/typo:1",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}},
        }
    ],
}
READY = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T08:00:00Z"}],
}


async def configs(namespace: Namespace) -> dict[str, Any]:
    found = await namespace.children()
    return {name: one for (plural, name), one in found.items() if plural == "configmaps"}


async def pods(namespace: Namespace, role: str) -> list[Any]:
    listed = await namespace.call("GET", namespace.path("pods") + f"?labelSelector=multipick.dev/role={role}")
    return [pod for pod in listed["items"] if "deletionTimestamp" not in pod["metadata"]]


async def say(namespace: Namespace, pod: Any, status: Any) -> None:
    await namespace.patch(namespace.path("pods", pod["metadata"]["name"]) + "/status", {"status": status})


async def newest(namespace: Namespace, role: str, known: list[Any]) -> Any:
    """A pod that was not there before."""
    names = {pod["metadata"]["name"] for pod in known}

    async def new() -> Any:
        return next((pod for pod in await pods(namespace, role) if pod["metadata"]["name"] not in names), None)

    return await until(new)


async def test_a_picker_keeps_its_configuration_until_the_next_one_is_ready(
    namespace: Namespace, running: Running, serve: Serve
) -> None:
    async with running():
        await namespace.apply()
        await serve(1)
        await namespace.reaches("Ready", "True", "Serving")
        before, old = await configs(namespace), await pods(namespace, "picker")
        await namespace.apply(routing={"picker": {"logLevel": "Debug"}})
        new = await newest(namespace, "picker", old)
        await say(namespace, new, FAILING)
        await namespace.reaches("Progressing", "False", "PickerRolloutFailed")
        await namespace.reaches("Ready", "True", "Serving")
        await namespace.reaches("PickerReady", "True", "PickerReady")
        events = await until(namespace.events, lambda found: "PickerFailed" in [one for one, _ in found])
        assert any("manifest unknown" in words for reason, words in events if reason == "PickerFailed")
        both = await configs(namespace)
        assert len(both) == 2
        (name,) = before
        assert both[name]["data"] == before[name]["data"]
        assert [
            pod["metadata"]["name"]
            for pod in await pods(namespace, "picker")
            if pod["metadata"]["name"] == old[0]["metadata"]["name"]
        ]
        await say(namespace, new, READY | {"containerStatuses": []})
        await until(lambda: configs(namespace), lambda found: len(found) == 1 and name not in found)
        await namespace.reaches("Progressing", "True", "RolloutComplete")


async def test_a_picker_image_that_can_not_be_had_costs_no_picker(
    namespace: Namespace, running: Running, serve: Serve, settings: Settings
) -> None:
    async with running():
        await namespace.apply()
        await serve(1)
        await namespace.reaches("Ready", "True", "Serving")
        old = await pods(namespace, "picker")
    async with running(identity="two", defaults_changes={"picker_image": "example.com/typo:1"}):
        await say(namespace, await newest(namespace, "picker", old), FAILING)
        await namespace.reaches("Progressing", "False", "PickerRolloutFailed")
        await namespace.reaches("Ready", "True", "Serving")
        assert len(await pods(namespace, "picker")) == 2


async def ports_of_engines(namespace: Namespace) -> list[int]:
    """That the Service of the engines has."""
    service = await namespace.find(namespace.path("services", "p-engine"))
    return [one["port"] for one in service["spec"]["ports"]]


async def test_a_changed_port_is_the_new_pods_alone(namespace: Namespace, running: Running, serve: Serve) -> None:
    ports = partial(ports_of_engines, namespace)
    async with running():
        await namespace.apply()
        await serve(1)
        await namespace.reaches("Ready", "True", "Serving")
        old = await pods(namespace, "engine")
        await namespace.apply(engine={"port": 9000})
        new = await newest(namespace, "engine", old)
        assert new["spec"]["containers"][0]["ports"][0] == {"name": "http", "containerPort": 9000, "protocol": "TCP"}
        await until(ports, lambda found: found == [9000, 8000])
        await namespace.reaches("Ready", "True", "Serving")
        await say(namespace, new, READY)
        await until(ports, lambda found: found == [9000])


async def evict(namespace: Namespace, pod: Any) -> None:
    """As a kubelet does that is low on something: the pod stays until somebody deletes it."""
    container = {"name": pod["spec"]["containers"][0]["name"], "image": "i", "imageID": "", "ready": False}
    container |= {"restartCount": 1, "state": {"terminated": {"exitCode": 137, "reason": "Error"}}}
    gone = {"phase": "Failed", "reason": "Evicted", "conditions": [{"type": "Ready", "status": "False"}]}
    await say(namespace, pod, gone | {"containerStatuses": [container]})


async def test_a_pod_that_was_evicted_holds_no_port_and_is_no_cause(
    namespace: Namespace, running: Running, serve: Serve
) -> None:
    ports = partial(ports_of_engines, namespace)
    async with running():
        await namespace.apply()
        await serve(1)
        await namespace.reaches("Ready", "True", "Serving")
        engine, picker = await pods(namespace, "engine"), await pods(namespace, "picker")
        for pod in (*engine, *picker):
            await evict(namespace, pod)
        await say(namespace, await newest(namespace, "engine", engine), READY)
        await namespace.reaches("PickerReady", "False", "NoReadyReplicas")
        await say(namespace, await newest(namespace, "picker", picker), READY)
        await namespace.reaches("Ready", "True", "Serving")
        engine, picker = await pods(namespace, "engine"), await pods(namespace, "picker")
        await namespace.apply(engine={"port": 9000})
        await say(namespace, await newest(namespace, "engine", engine), READY)
        await say(namespace, await newest(namespace, "picker", picker), READY)
        await until(ports, lambda found: found == [9000])
        await namespace.reaches("Progressing", "True", "RolloutComplete")
        assert len([pod for pod in await pods(namespace, "engine") if pod["status"]["phase"] == "Failed"]) == 1


def engines(namespace: Namespace) -> Callable[[], Any]:
    async def look() -> Any:
        found = await namespace.find(namespace.path("deployments", "p-engine", "apps/v1"))
        return found and found["spec"]["replicas"]

    return look


async def scale(namespace: Namespace, count: int) -> None:
    await namespace.patch(namespace.pool_path() + "/scale", {"spec": {"replicas": count}})


@pytest.mark.parametrize(
    ("before", "autoscaling", "after"),
    [
        (4, {"minReplicas": 4, "maxReplicas": 8}, 4),
        (4, {"minReplicas": 1, "maxReplicas": 8}, 4),
        (2, {"minReplicas": 3, "maxReplicas": 8}, 3),
        (6, {"minReplicas": 1, "maxReplicas": 4}, 4),
    ],
)
@pytest.mark.parametrize("said", [{}, {"replicas": 1}], ids=["left out", "1"])
async def test_switching_autoscaling_on_keeps_the_fleet(
    namespace: Namespace, running: Running, before: int, autoscaling: Any, after: int, said: Any
) -> None:
    sizes = set()
    async with running():
        await namespace.apply(replicas=before)
        await until(engines(namespace), lambda found: found == before)
        await namespace.apply(**said, autoscaling=autoscaling)

        async def pool() -> Any:
            sizes.add(await engines(namespace)())
            return await namespace.call("GET", namespace.pool_path() + "/scale")

        await until(pool, lambda found: found["spec"]["replicas"] == after)
        await until(engines(namespace), lambda found: found == after)
        assert sizes <= {before, after}
        await scale(namespace, after - 1 if after > autoscaling["minReplicas"] else after + 1)
        moved = after - 1 if after > autoscaling["minReplicas"] else after + 1
        await until(engines(namespace), lambda found: found == moved)
        await namespace.apply(**said, autoscaling=autoscaling, disruption={"enabled": False})  # as GitOps would, again
        await until(namespace.children, lambda found: ("poddisruptionbudgets", "p-engine") not in found)
        assert await engines(namespace)() == moved


async def test_a_pool_that_is_made_with_autoscaling_starts_at_its_least(namespace: Namespace, running: Running) -> None:
    async with running():
        await namespace.apply(autoscaling={"minReplicas": 3, "maxReplicas": 8})
        await until(engines(namespace), lambda found: found == 3)
        await scale(namespace, 1)
        await namespace.apply(autoscaling={"minReplicas": 3, "maxReplicas": 8}, disruption={"enabled": False})
        await until(namespace.children, lambda found: ("poddisruptionbudgets", "p-engine") not in found)
        assert await engines(namespace)() == 3


async def test_a_number_that_comes_while_the_operator_is_about_to_write_its_own_stands(
    namespace: Namespace, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Writes.replicas

    async def late(*about: Any) -> None:
        monkeypatch.setattr(Writes, "replicas", write)
        await namespace.apply(replicas=2)
        await write(*about)

    monkeypatch.setattr(Writes, "replicas", late)
    async with running():
        await namespace.apply(autoscaling={"minReplicas": 3, "maxReplicas": 8})
        await until(engines(namespace), lambda found: found == 2)
        assert Writes.replicas is write
        assert (await namespace.call("GET", namespace.pool_path()))["spec"]["replicas"] == 2


async def test_a_number_that_is_as_wanted_is_not_written(
    namespace: Namespace, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*about: Any) -> None:
        raise AssertionError(about)

    monkeypatch.setattr(Writes, "replicas", never)
    async with running():
        await namespace.apply(replicas=3, autoscaling={"minReplicas": 2, "maxReplicas": 8})
        await until(engines(namespace), lambda found: found == 3)
        await scale(namespace, 2)
        await until(engines(namespace), lambda found: found == 2)


async def test_weights_outlive_the_cache_and_the_pool(namespace: Namespace, running: Running) -> None:
    claim = namespace.path("persistentvolumeclaims", "p-cache")
    async with running():
        await namespace.apply(storage={"cache": {"type": "PVC"}})
        first = await until(lambda: namespace.find(claim))
        assert first["spec"]["accessModes"] == ["ReadWriteOnce"]
        await namespace.apply(disruption={"enabled": False})
        await until(namespace.children, lambda found: ("poddisruptionbudgets", "p-engine") not in found)
        await namespace.call("DELETE", namespace.pool_path())
        engine = namespace.path("deployments", "p-engine", "apps/v1")
        await until(lambda: namespace.find(engine), lambda found: found is None)
        await namespace.apply(storage={"cache": {"type": "PVC"}}, replicas=3)
        await namespace.reaches("Accepted", "True", "Accepted")
        kept = await namespace.find(claim)
        assert kept["metadata"]["uid"] == first["metadata"]["uid"]
        assert "deletionTimestamp" not in kept["metadata"]
        await namespace.apply(storage={"cache": {"type": "PVC", "retention": "Delete"}}, replicas=3)
        await until(lambda: namespace.find(claim), lambda found: found["metadata"].get("ownerReferences"))
        await namespace.apply(replicas=3)
        await until(lambda: namespace.find(claim), lambda found: not found or "deletionTimestamp" in found["metadata"])


async def test_a_cache_that_several_pods_share_is_for_many(namespace: Namespace, running: Running) -> None:
    claim = namespace.path("persistentvolumeclaims", "p-cache")
    async with running():
        await namespace.apply(storage={"cache": {"type": "PVC"}}, autoscaling={"maxReplicas": 2})
        made = await until(lambda: namespace.find(claim))
        assert made["spec"]["accessModes"] == ["ReadWriteMany"]


async def test_no_pool_needs_a_special_node_by_default(namespace: Namespace, running: Running) -> None:
    async with running():
        await namespace.apply()
        engine = await until(lambda: namespace.find(namespace.path("deployments", "p-engine", "apps/v1")))
        pod = engine["spec"]["template"]["spec"]
        assert pod["containers"][0]["resources"]["requests"] == {"nvidia.com/gpu": "1"}
        assert next(one for one in pod["volumes"] if one["name"] == "cache")["emptyDir"] == {}
        await namespace.apply(storage={"cache": {"size": "200Gi"}})
        await until(
            lambda: namespace.find(namespace.path("deployments", "p-engine", "apps/v1")),
            lambda found: found["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"].get(
                "ephemeral-storage"
            ),
        )


async def test_devices_may_be_claimed_and_a_rollout_may_be_by_share(namespace: Namespace, running: Running) -> None:
    async with running():
        await namespace.apply(
            replicas=4,
            resources={
                "accelerator": {"count": 0},
                "deviceClaims": [{"name": "gpu", "templateName": "h200"}],
            },
            rollout={"maxSurge": "25%", "maxUnavailable": "50%"},
        )
        engine = await until(lambda: namespace.find(namespace.path("deployments", "p-engine", "apps/v1")))
        pod = engine["spec"]["template"]["spec"]
        assert pod["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "h200"}]
        assert pod["containers"][0]["resources"] == {"claims": [{"name": "gpu"}]}
        assert engine["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": "50%"}


async def test_kubectl_rollout_restart_is_not_undone(namespace: Namespace, running: Running) -> None:
    path = namespace.path("deployments", "p-engine", "apps/v1")
    restart = {"kubectl.kubernetes.io/restartedAt": "2026-11-22T08:00:00Z"}
    async with running():
        await namespace.apply()
        await until(lambda: namespace.find(path))
        await namespace.reaches("Accepted", "True", "Accepted")
        await namespace.patch(path, {"spec": {"template": {"metadata": {"annotations": restart}}}})
        await namespace.apply(replicas=2)
        found = await until(lambda: namespace.find(path), lambda found: found["spec"]["replicas"] == 2)
        assert found["spec"]["template"]["metadata"]["annotations"] == restart
