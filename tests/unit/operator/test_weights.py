"""Where models lie, and who brings them."""

from collections.abc import Callable
from typing import Any

import pytest
from multipick_operator.api.pool import Pool
from multipick_operator.children import desired
from multipick_operator.children.artifacts import Artifact, artifact, claim_of
from multipick_operator.children.context import Context

MakePool = Callable[..., Pool]


def child(pool: Pool, context: Context, kind: str, name: str) -> dict[str, Any]:
    return next(c for c in desired(pool, context) if (c["kind"], c["metadata"]["name"]) == (kind, name))


def engine_pod(pool: Pool, context: Context) -> dict[str, Any]:
    pod: dict[str, Any] = child(pool, context, "Deployment", "p-engine")["spec"]["template"]
    return pod


def test_weights_that_an_init_step_fetches_are_a_folder_to_the_engine(make_pool: MakePool, context: Context) -> None:
    fetched = {"cache": {"type": "PVC", "mountPath": "/cache"}, "fetch": {"secretName": "keys"}}
    hub = {"uri": "hf://org/m", "revision": "v2", "hfTokenSecretRef": {"name": "hf"}}
    pod = engine_pod(make_pool(model=hub, storage=fetched), context)["spec"]
    (step,), (main,) = pod["initContainers"], pod["containers"]
    uri, folder, revision = step["args"]
    assert (uri, revision) == ("hf://org/m", "v2")
    assert folder.startswith("/cache/weights/org--m-")
    assert main["args"][:2] == ["serve", folder]
    assert "--revision" not in main["args"]
    assert step["image"] == main["image"]
    assert [one["name"] for one in step["env"]] == ["HF_TOKEN"]
    assert step["envFrom"] == [{"secretRef": {"name": "keys"}}]
    mounts = {one["name"] for one in step["volumeMounts"]}
    assert mounts == {"cache", "weights-script"}
    assert mounts <= {one["name"] for one in pod["volumes"]}
    other = engine_pod(make_pool(model=hub | {"revision": "v3"}, storage=fetched), context)["spec"]
    assert other["initContainers"][0]["args"][1] != folder
    (bucket,) = engine_pod(make_pool(model={"uri": "s3://bucket/m"}, storage=fetched), context)["spec"]["containers"]
    assert bucket["args"][1].startswith("/cache/weights/bucket--m-")
    assert "--load-format" not in bucket["args"]
    assert "initContainers" not in engine_pod(make_pool(model=hub), context)["spec"]


def test_what_the_init_step_runs_may_change_without_a_restart(
    make_pool: MakePool, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(storage={"fetch": {}})
    script = child(pool, context, "ConfigMap", "p-weights")["data"]["weights.py"]
    compile(script, "weights.py", "exec")
    before = engine_pod(pool, context)
    monkeypatch.setattr("inspect.getsource", lambda _: "other")
    assert child(pool, context, "ConfigMap", "p-weights")["data"]["weights.py"] == "other"
    assert engine_pod(pool, context) == before


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("hf://org/m", Artifact("org/m")),
        ("org/m", Artifact("org/m")),
        ("/in/image", Artifact("/in/image")),
        ("s3://bucket/m", Artifact("s3://bucket/m")),
        (
            "pvc://claim/a/b",
            Artifact(
                "/mnt/model/a/b",
                {"name": "model", "persistentVolumeClaim": {"claimName": "claim", "readOnly": True}},
                {"name": "model", "mountPath": "/mnt/model", "readOnly": True},
            ),
        ),
        (
            "oci://registry/m:1",
            Artifact(
                "/mnt/model",
                {"name": "model", "image": {"reference": "registry/m:1"}},
                {"name": "model", "mountPath": "/mnt/model", "readOnly": True},
            ),
        ),
    ],
)
def test_a_uri_becomes_what_the_engine_is_told(uri: str, expected: Artifact) -> None:
    assert artifact(uri, "model") == expected
    assert claim_of(uri) == ("claim" if uri.startswith("pvc") else None)
