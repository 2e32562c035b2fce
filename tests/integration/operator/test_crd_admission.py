"""What the API server itself says to good and bad pools: no operator runs here."""

import json
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.apiserver import ApiServer
from cluster.build import UnavailableError
from multipick_operator.api.crd import crd

ROOT = Path(__file__).parents[3]
SAMPLES = sorted((ROOT / "manifests/samples").glob("*.yaml"))
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
POOLS = "/apis/multipick.dev/v1alpha1/namespaces/default/inferencepools"
URI = {"model": {"uri": "hf://org/model"}}
ADAPTER = {"name": "a", "uri": "hf://org/a"}
LORA = {"lora": {"allowRuntimeUpdates": True}}
PODS = {"existingPods": {"matchLabels": {"app": "x"}}}


def create(api: ApiServer, spec: dict[str, Any], name: str = "p") -> Any:
    body = {"apiVersion": "multipick.dev/v1alpha1", "kind": "InferencePool", "metadata": {"name": name}, "spec": spec}
    return api.request("POST", f"{POOLS}?dryRun=All", body)


def refusal(api: ApiServer, spec: dict[str, Any], name: str = "p") -> str:
    with pytest.raises(urllib.error.HTTPError) as caught:
        create(api, spec, name)
    assert caught.value.code == 422
    message: str = json.loads(caught.value.read())["message"]
    return message


def is_refused(api: ApiServer, spec: dict[str, Any], name: str) -> bool:
    try:
        create(api, spec, name)
    except urllib.error.HTTPError as error:
        return error.code == 422
    return False


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def route(**asked: Any) -> dict[str, Any]:
    parents = {"create": True, "parentRefs": [{"name": "g"}]}
    return {**URI, "routing": {"gateway": {"httpRoute": parents | asked}}}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_is_admitted(api: ApiServer, path: Path) -> None:
    sample = yaml.safe_load(path.read_text())
    assert create(api, sample["spec"], sample["metadata"]["name"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "model.uri is required unless existingPods is given"),
        ({**PODS, "autoscaling": {"maxReplicas": 2}}, "scale existingPods where they are made"),
        ({**URI, "autoscaling": {"minReplicas": 3, "maxReplicas": 2}}, "minReplicas is above maxReplicas"),
        ({**URI, "autoscaling": {"maxReplicas": 2, "backend": "KEDA"}}, "backend KEDA needs prometheusUrl"),
        ({**URI, "autoscaling": {"maxReplicas": 2, "idleToZero": True}}, "idleToZero are KEDA's"),
        ({**URI, "autoscaling": {"maxReplicas": 2, "triggers": [{"type": "cron"}]}}, "triggers, cooldownSeconds"),
        ({**PODS, "replicas": 3}, "scale existingPods where they are made"),
        ({**URI, "parallelism": {"data": 2, "nodes": 2}}, "don't go together yet"),
        ({**URI, "parallelism": {"tensor": 3, "nodes": 2}}, "must be a multiple of nodes"),
        ({**URI, "engine": {"type": "SGLang"}, "parallelism": {"data": 2}}, "needs one port a rank"),
        ({"model": {"uri": "/m", "aliases": ["a"]}, "engine": {"type": "SGLang"}}, "SGLang serves one name"),
        ({**URI, "engine": {"type": "Simulated"}, "parallelism": {"tensor": 2, "nodes": 2}}, "has one node"),
        ({**URI, "engine": {"kvEvents": {"port": 5557, "replayPort": 5557}}}, "these overlap"),
        ({**URI, "parallelism": {"data": 2}, "engine": {"port": 5556}}, "overlaps the ports of engine.kvEvents"),
        ({**URI, "rollout": {"maxSurge": 0, "maxUnavailable": 0}}, "can't both be 0"),
        ({**URI, "rollout": {"maxSurge": "0%", "maxUnavailable": 0}}, "can't both be 0"),
        ({**URI, "rollout": {"maxSurge": "101%"}}, "spec.rollout.maxSurge"),
        ({**URI, "rollout": {"maxSurge": "a lot"}}, "spec.rollout.maxSurge"),
        ({**URI, "resources": {"deviceClaims": [{"name": "gpu"}]}}, "exactly one of templateName and claimName"),
        ({**URI, "storage": {"cache": {"type": "ExistingClaim"}}}, "needs claimName"),
        ({**URI, "storage": {"cache": {"type": "HostPath"}}}, "needs hostPath"),
        ({**URI, "routing": {"gateway": {"httpRoute": {"create": True}}}}, "httpRoute.create needs parentRefs"),
        (
            {
                **URI,
                "routing": {
                    "gateway": {
                        "createInferencePool": False,
                        "httpRoute": {"create": True, "parentRefs": [{"name": "g"}]},
                    }
                },
            },
            "httpRoute.create needs createInferencePool",
        ),
        ({**URI, "engine": {"env": [{"name": "A", "value": "1", "valueFrom": {}}]}}, "exclude each other"),
        ({**URI, "engine": {"env": [{"name": "A", "valueFrom": {}}]}}, "exactly one source"),
        ({**URI, "engine": {"envFrom": [{}]}}, "exactly one of secretRef and configMapRef"),
        ({"model": {"uri": "ftp://x"}}, "spec.model.uri"),
        ({**URI, "resources": {"requests": {"a b": 1}}}, "requests: names of resources"),
        ({**URI, "routing": {"picker": {"resources": {"limits": {"/gpu": 1}}}}}, "limits: names of resources"),
        ({**URI, "resources": {"deviceClaims": [{"name": "a.b", "claimName": "c"}]}}, "a claim's name within a pod"),
        (route(hostnames=["not a host"]), "hostnames: names of hosts in lower case"),
        (route(hostnames=["a.test", "A.test"]), "hostnames: names of hosts in lower case"),
        (route(headers=[{"name": "x y", "value": "v"}]), "headers: a name has neither spaces nor colons"),
        ({"existingPods": {"matchLabels": {"a b": "x"}}}, "matchLabels: the name of a label has letters"),
        ({"existingPods": {"matchLabels": {"/app": "x"}}}, "matchLabels: the name of a label has letters"),
        ({"existingPods": {"matchLabels": {"app": "x y"}}}, "spec.existingPods.matchLabels.app"),
        ({**URI, "scheduling": {"nodeSelector": {"a/b/c": "x"}}}, "nodeSelector: the name of a label has letters"),
        ({**URI, "monitoring": {"podMonitor": {"labels": {"": "x"}}}}, "labels: the name of a label has letters"),
        ({**URI, "engine": {"port": 65535}, "parallelism": {"data": 2}}, "is above 65535"),
        ({**URI, "engine": {"kvEvents": {"replayPort": 65534}}, "parallelism": {"data": 3}}, "is above 65535"),
        ({**URI, "index": {"url": "redis://:secret@host"}}, "would see its password"),
        ({**URI, "index": {"url": "rediss://user:secret@host:1/0"}}, "would see its password"),
        ({**URI, "replicas": -1}, "spec.replicas"),
        ({**URI, "resources": {"requests": {"memory": "lots"}}}, "spec.resources.requests.memory"),
        ({**URI, "resources": {"limits": {"memory": "64GB"}}}, "spec.resources.limits.memory"),
        ({**URI, "resources": {"limits": {"cpu": "-1"}}}, "spec.resources.limits.cpu"),
        ({**URI, "resources": {"limits": {"cpu": -1}}}, "spec.resources.limits.cpu"),
        ({**URI, "storage": {"cache": {"size": "1 Gi"}}}, "spec.storage.cache.size"),
        ({**URI, "routing": {"picker": {"resources": {"limits": {"memory": "2gb"}}}}}, "limits.memory"),
        ({**URI, "routing": {"picker": {"policy": "lmetric:2"}}}, "policy is one of"),
        ({**URI, "routing": {"picker": {"policy": "linear:0.7.7"}}}, "policy is one of"),
        ({**URI, "routing": {"picker": {"policy": "linear:1.5"}}}, "policy is one of"),
        ({**URI, "routing": {"picker": {"shadow": ["linear:."]}}}, "shadow: each is one of"),
        ({**URI, "routing": {"picker": {"policy": "lmetrics"}}}, "policy is one of lmetric, marginal"),
        ({**URI, "engine": {"type": "vllm"}}, "Unsupported value"),
        ({**URI, "routing": {"picker": {"shadow": ["vllm-v1", "lmetrics"]}}}, "shadow: each is one of lmetric"),
        ({**URI, "routing": {"picker": {"maxReadBytes": 2048, "maxBodyBytes": 1024}}}, "is above maxBodyBytes"),
        ({**URI, "index": {"url": "redis://s"}, "routing": {"picker": {"capture": {}}}}, "capture makes its ids with"),
        ({**URI, "routing": {"picker": {"capture": {"files": 1}}}}, "spec.routing.picker.capture.files"),
        ({**URI, "routing": {"picker": {"workers": 2, "capture": {"files": 3}}}}, "two for each of the workers"),
        ({**URI, "routing": {"picker": {"workers": 0}}}, "spec.routing.picker.workers"),
        ({**URI, "engine": {"kvEvents": {"media": {"gpu": 50}}}}, "a token on the GPU is worth 100"),
        ({**URI, "engine": {"kvEvents": {"media": {"CPU": 50, "cpu": 40}}}}, "each once"),
        ({**URI, "engine": {"kvEvents": {"media": {"a b": 50}}}}, "the engine's name of where"),
        ({**URI, "engine": {"kvEvents": {"media": {"CPU": 101}}}}, "spec.engine.kvEvents.media"),
        ({"model": {"uri": "pvc://c/m"}, "storage": {"fetch": {}}}, "storage.fetch is for models of hf:// and s3://"),
        ({**PODS, "storage": {"fetch": {}}}, "storage.fetch is for models of hf:// and s3://"),
        ({**URI, "adapters": [ADAPTER]}, "needs lora.allowRuntimeUpdates"),
        ({**URI, **LORA, "adapters": [{"name": "a", "uri": "s3://b/a"}]}, "spec.adapters[0].uri"),
        (
            {**URI, "lora": {"allowRuntimeUpdates": True, "adapters": [ADAPTER]}, "adapters": [ADAPTER]},
            "one of adapters or one of lora.adapters",
        ),
    ],
)
def test_a_contradiction_is_refused_in_words(api: ApiServer, spec: dict[str, Any], message: str) -> None:
    assert message in refusal(api, spec)


@pytest.mark.parametrize("name", ["a" * 46, "1pool", "my.pool"])
def test_a_name_that_children_could_not_carry_is_refused(api: ApiServer, name: str) -> None:
    assert "a pool's name is at most 45" in refusal(api, URI, name)


def test_a_name_that_the_workers_of_a_group_could_not_carry_is_refused(api: ApiServer) -> None:
    grouped = {**URI, "parallelism": {"tensor": 2, "nodes": 2}}
    assert "at most 39 letters where parallelism.nodes > 1" in refusal(api, grouped, "a" * 40)
    assert create(api, grouped, "a" * 39)
    assert create(api, URI, "a" * 45)


def test_a_pool_that_had_such_a_name_before_lives_on(tmp_path: Path) -> None:
    """Rules are looked at with each write, that of its status and that of its last finalizer, too."""
    before = crd()
    schema = before["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    rules = schema["x-kubernetes-validations"]
    schema["x-kubernetes-validations"] = [one for one in rules if "LeaderWorkerSet" not in one["message"]]
    grouped, name = {**URI, "parallelism": {"tensor": 2, "nodes": 2}}, "a" * 41
    server = ApiServer(tmp_path)
    try:
        server.start([before])
    except UnavailableError as error:
        pytest.skip(str(error))
    try:
        body = {"apiVersion": "multipick.dev/v1alpha1", "kind": "InferencePool", "metadata": {"name": name}}
        server.request("POST", POOLS, body | {"spec": grouped})
        definition = server.request("GET", f"{CRDS}/inferencepools.multipick.dev")
        server.request("PUT", f"{CRDS}/inferencepools.multipick.dev", definition | {"spec": crd()["spec"]})
        until(lambda: is_refused(server, grouped, "a" * 40))
        found = server.request("GET", f"{POOLS}/{name}")
        found = server.request("PUT", f"{POOLS}/{name}/status", found | {"status": {"replicas": 1}})
        assert found["status"]["replicas"] == 1
        found["metadata"]["annotations"] = {"a": "b"}
        assert server.request("PUT", f"{POOLS}/{name}", found)
    finally:
        server.stop()


def test_own_pods_stay_own_pods(api: ApiServer) -> None:
    path = f"{POOLS}/own"
    manifest = {"apiVersion": "multipick.dev/v1alpha1", "kind": "InferencePool", "metadata": {"name": "own"}}
    api.apply(path, manifest | {"spec": URI})
    try:
        with pytest.raises(urllib.error.HTTPError) as caught:
            api.apply(path, manifest | {"spec": PODS | URI})
        assert "can't change between own and existing pods" in caught.value.read().decode()
    finally:
        api.request("DELETE", path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, {"model": {"name": "new"}}, "model.name can't change"),
        ({"model": {"name": "old"}}, {"model": {"name": "new"}}, "model.name can't change"),
        ({"engine": {"type": "VLLM"}}, {"engine": {"type": "SGLang"}}, "engine.type can't change"),
        ({}, {"parallelism": {"tensor": 2, "nodes": 2}}, "nodes can't change between 1 and more"),
        ({"parallelism": {"tensor": 2, "nodes": 2}}, {}, "nodes can't change between 1 and more"),
        (
            LORA | {"adapters": [ADAPTER]},
            LORA | {"adapters": [ADAPTER | {"uri": "hf://org/b"}]},
            "an adapter's uri can't change",
        ),
        (
            {"engine": {"type": "SGLang"}},
            {"engine": {"type": "SGLang", "kvEvents": {"port": 5600}}},
            "engine.kvEvents: ports can't change",
        ),
    ],
)
def test_what_can_not_change_pod_by_pod_is_refused_in_words(
    api: ApiServer, before: dict[str, Any], after: dict[str, Any], message: str
) -> None:
    path = f"{POOLS}/fixed"
    manifest = {"apiVersion": "multipick.dev/v1alpha1", "kind": "InferencePool", "metadata": {"name": "fixed"}}

    def spec(changes: dict[str, Any]) -> dict[str, Any]:
        return changes | {"model": {"uri": "hf://org/m"} | changes.get("model", {})}

    api.apply(path, manifest | {"spec": spec(before)})
    try:
        with pytest.raises(urllib.error.HTTPError) as caught:
            api.apply(path, manifest | {"spec": spec(after)})
        assert message in json.loads(caught.value.read())["message"]
        api.apply(path, manifest | {"spec": spec(before) | {"replicas": 2}})
    finally:
        api.request("DELETE", path)


def test_pods_of_others_are_not_scaled_here(api: ApiServer) -> None:
    path = f"{POOLS}/theirs"
    manifest = {"apiVersion": "multipick.dev/v1alpha1", "kind": "InferencePool", "metadata": {"name": "theirs"}}
    api.apply(path, manifest | {"spec": PODS})
    try:
        scale = api.request("GET", f"{path}/scale")
        scale["spec"]["replicas"] = 4
        with pytest.raises(urllib.error.HTTPError) as caught:
            api.request("PUT", f"{path}/scale", scale)
        assert "scale existingPods where they are made" in caught.value.read().decode()
    finally:
        api.request("DELETE", path)


def test_the_scale_subresource_moves_the_spec(api: ApiServer) -> None:
    path = f"{POOLS}/scaled"
    manifest = {"apiVersion": "multipick.dev/v1alpha1", "kind": "InferencePool", "metadata": {"name": "scaled"}}
    api.apply(path, manifest | {"spec": URI})
    try:
        scale = api.request("GET", f"{path}/scale")
        assert scale["spec"]["replicas"] == 1
        scale["spec"]["replicas"] = 4
        api.request("PUT", f"{path}/scale", scale)
        assert api.request("GET", path)["spec"]["replicas"] == 4
    finally:
        api.request("DELETE", path)


@pytest.mark.parametrize("quantity", [1, 0, "1", "500m", "8Gi", "1.5G", ".5", "1e3", "2E", "12E-2"])
def test_every_way_to_write_a_quantity_is_admitted(api: ApiServer, quantity: int | str) -> None:
    assert create(api, {**URI, "resources": {"requests": {"memory": quantity}}})


def test_what_the_picker_can_be_told_is_admitted(api: ApiServer) -> None:
    picker = {
        "capture": {},
        "shadow": ["vllm-v1", "linear:0.7"],
        "hotspotGuard": False,
        "maxBodyBytes": 1024,
        "maxReadBytes": 1024,
        "workers": 2,
    }
    media = {"kvEvents": {"media": {"CPU": 50, "STORAGE": 10}}}
    made = create(api, {**URI, **LORA, "adapters": [ADAPTER], "routing": {"picker": picker}, "engine": media})
    assert made["spec"]["engine"]["kvEvents"]["media"] == {"CPU": 50, "STORAGE": 10}


@pytest.mark.parametrize("key", ["app", "app.kubernetes.io/name", "a_b.C-d", "9", "x" * 63, "example.com/x"])
def test_every_label_is_admitted(api: ApiServer, key: str) -> None:
    assert create(api, {**PODS, "existingPods": {"matchLabels": {key: "x"}}})


@pytest.mark.parametrize(
    "url",
    [
        *("redis://", "redis:// h", "redis://h h", "redis://h\n", "redis://h:x", "redis://h:0", "redis://h:99999"),
        *("redis://h/x", "redis://h/0/1", "redis://h,i", "redis://[::1", "redis://@h", "redis://%zz@h", "redis://h#f"),
        *("redis://h?x=1", "redis://h?ca=/f", "rediss://h?sentinel_password=s", "rediss://h?ca=", "rediss://h?key=/k"),
        *(
            "redis+sentinel://h",
            "redis+sentinel://h:1,/m",
            "redis+sentinel://h/m/x",
            "unix:///s",
            "http://h",
            "redis://]@h",
        ),
    ],
)
def test_a_store_that_no_picker_could_read_is_refused_in_words(api: ApiServer, url: str) -> None:
    message = refusal(api, {**URI, "index": {"url": url}})
    assert "url: redis://[user@]host[:port][/database]" in message or "url: key goes with cert" in message


@pytest.mark.parametrize(
    "url", ["http://", "https:// p", "http://user:pass@p", "http://p:99999", "http://p/a b", "p:90"]
)
def test_a_prometheus_that_can_not_be_asked_is_refused_in_words(api: ApiServer, url: str) -> None:
    scaled = {"autoscaling": {"maxReplicas": 2, "backend": "KEDA", "prometheusUrl": url}}
    assert "prometheusUrl: http:// or https://, host[:port]" in refusal(api, {**URI, **scaled})


@pytest.mark.parametrize("image", ["a b", "https://x/y", "-x", "X/Y:", "x:y:z", "a//b", "a..b", "a@sha256:1", "x\n"])
def test_what_is_no_image_is_refused_in_words(api: ApiServer, image: str) -> None:
    for spec in ({"engine": {"image": image}}, {"routing": {"picker": {"image": image}}}):
        assert "image: the name of an image" in refusal(api, {**URI, **spec})
    assert "uri: hf://org/name" in refusal(api, {"model": {"uri": f"oci://{image}"}})


@pytest.mark.parametrize(
    "image",
    ["x", "vllm/vllm-openai:v0.32.0", "localhost:5000/a__b/c-d", "ghcr.io/a/b.c:t@sha256:" + 64 * "0", "R.test:1/x"],
)
def test_every_image_is_admitted(api: ApiServer, image: str) -> None:
    assert create(api, {"model": {"uri": f"oci://{image}"}, "engine": {"image": image}})


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        *[
            ({"model": {"uri": uri}}, "spec.model.uri")
            for uri in ("hf://a/b/c", "hf://-x", "s3:///x", "pvc:///x", "-x")
        ],
        *[({"model": {"uri": "/m", "name": name}}, "model.name") for name in ("-x", "--host=1", "a\nb", " ")],
        ({"model": {"uri": "/m", "aliases": ["-x"]}}, "model.aliases[0]"),
        *[({"model": {"uri": "/m", "revision": given}}, "model.revision") for given in ("-x", "a b")],
        *[
            ({**URI, "lora": {"adapters": [ADAPTER | {"name": n}]}}, "lora.adapters[0].name")
            for n in ("-a", "a=b", "a,b")
        ],
        *[({**URI, "lora": {"adapters": [ADAPTER | {"uri": u}]}}, "lora.adapters[0].uri") for u in ("/x=y", "/x,y")],
        *[({**URI, "engine": {"metricsPath": path}}, "engine.metricsPath") for path in ("/a b", "/a\n", "/ä", "m")],
        *[(route(pathPrefix=path), "pathPrefix") for path in ("/a b", "/v1?x=1", "/%zz")],
        *[(route(rewritePathPrefix=path), "rewritePathPrefix") for path in ("/a b", "/a?x", "/a\nb")],
        *[(route(headers=[{"name": "a", "value": v}]), "headers[0].value") for v in ("", "a\nb", " a")],
        *[({**URI, "engine": {"hashSeed": seed}}, "engine.hashSeed") for seed in ("4294967296", "9999999999", "-1")],
        *[({**URI, "engine": {"kvEvents": {"topic": t}}}, "engine.kvEvents.topic") for t in ("-x", "a\nb")],
        *[({**URI, "storage": {"cache": {"mountPath": p}}}, "mountPath") for p in ("/", "/a:b", "/a b", "/a\n", "x")],
        *[({**URI, "storage": {"cache": {"mountPath": p}}}, "mountPath: a folder") for p in ("/dev/shm", "/a/../dev")],
        *[({**URI, "resources": {"requests": {"cpu": q}}}, "requests.cpu") for q in ("1e9999999999", "9" * 40)],
    ],
)
def test_what_would_fail_in_a_pod_is_refused_by_its_field(api: ApiServer, spec: dict[str, Any], field: str) -> None:
    assert field in refusal(api, spec)


def test_the_largest_seed_is_admitted(api: ApiServer) -> None:
    assert create(api, {**URI, "engine": {"hashSeed": "4294967295"}})


@pytest.mark.parametrize(
    "url",
    [
        *("redis://h", "redis://h/", "rediss://user@h:6380/0", "rediss://[::1]:1?ca=/f&cert=/c&key=/k"),
        "redis+sentinel://u%40x@a:1,b:2/m/1",
    ],
)
def test_a_store_is_named_with_a_user_or_without(api: ApiServer, url: str) -> None:
    assert create(api, {**URI, "index": {"url": url}})


@pytest.mark.parametrize("policy", ["lmetric", "vllm-032", "linear", "linear:0.7", "linear:1", "linear:.5"])
def test_every_policy_is_admitted(api: ApiServer, policy: str) -> None:
    assert create(api, {**URI, "routing": {"picker": {"policy": policy}}})


def test_a_picker_of_ones_own_may_bring_a_policy_of_ones_own(api: ApiServer) -> None:
    assert create(api, {**URI, "routing": {"picker": {"policy": "mine", "image": "example.com/mine:1"}}})
