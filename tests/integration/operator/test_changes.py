"""Changes of a pool that serves: what is addressed stays addressed until it is gone."""

from collections.abc import Callable
from typing import Any

from cluster.client import Namespace, until
from multipick_operator.app import Settings

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
READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


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


async def test_a_changed_port_is_the_new_pods_alone(namespace: Namespace, running: Running, serve: Serve) -> None:
    service = namespace.path("services", "p-engine")

    async def ports() -> list[int]:
        return [one["port"] for one in (await namespace.find(service))["spec"]["ports"]]

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
