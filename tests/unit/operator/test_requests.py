from typing import Any

import pytest
from multipick_operator import kube
from multipick_operator.api.pool import pool_of
from multipick_operator.applied import Applied, fingerprint
from multipick_operator.children import Ref, catalogue
from multipick_operator.references import Reference, references
from multipick_operator.watch import CHILDREN

DEPLOYMENT = Ref("apps/v1", "Deployment", "a")


def pool(**spec: Any) -> Any:
    return pool_of({"metadata": {"namespace": "ml", "name": "p", "uid": "u", "generation": 1}, "spec": spec})


def test_paths_are_those_of_the_kubernetes_api() -> None:
    assert kube.path_of(DEPLOYMENT, "ns") == "/apis/apps/v1/namespaces/ns/deployments/a"
    assert kube.path_of(Ref("v1", "Pod", ""), "ns") == "/api/v1/namespaces/ns/pods"
    status = kube.patch_status("ns", "p", {"replicas": 1})
    assert status.path == "/apis/multipick.dev/v1alpha1/namespaces/ns/inferencepools/p/status"
    assert status.body == {"status": {"replicas": 1}}


def test_a_child_is_applied_by_force_under_our_name() -> None:
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "ns"}}
    request = kube.apply(manifest)
    assert (request.method, request.content_type) == ("PATCH", "application/apply-patch+yaml")
    assert request.query == {"fieldManager": "multipick-operator", "force": "true"}


def test_of_a_secret_only_metadata_is_read() -> None:
    assert "PartialObjectMetadata" in kube.get(Ref("v1", "Secret", "s"), "ns").accept
    assert kube.get(DEPLOYMENT, "ns").accept == "application/json"


def test_only_the_object_that_was_seen_is_deleted() -> None:
    assert kube.delete(DEPLOYMENT, "ns", "u-1").body["preconditions"] == {"uid": "u-1"}


def test_every_child_has_a_plural_and_all_but_secrets_and_claims_are_watched() -> None:
    watched = {(f"{group}/{version}".lstrip("/"), plural) for group, version, plural in CHILDREN}
    for ref in catalogue(pool()):
        plural = kube.PLURALS[ref.api_version, ref.kind]
        assert ((ref.api_version, plural) in watched) == (ref.kind not in ("Secret", "PersistentVolumeClaim"))


META: dict[str, Any] = {"uid": "u", "resourceVersion": "5", "labels": {"a": "b"}}
LIVE: dict[str, Any] = {"metadata": META, "spec": {"x": 1}, "status": {"y": 1}}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"status": {"y": 2}}, True),
        ({"metadata": META | {"resourceVersion": "6"}}, True),
        ({"metadata": META | {"annotations": {"deployment.kubernetes.io/revision": "2"}}}, True),
        ({"metadata": META | {"annotations": {"team": "x"}}}, False),
        ({"metadata": META | {"labels": {}}}, False),
        ({"spec": {"x": 2}}, False),
    ],
)
def test_a_fingerprint_is_of_what_people_change(change: dict[str, Any], same: bool) -> None:
    assert (fingerprint(DEPLOYMENT, LIVE | change) == fingerprint(DEPLOYMENT, LIVE)) is same


def test_what_was_applied_is_current_until_either_side_changes() -> None:
    applied = Applied()
    assert not applied.is_current(DEPLOYMENT, {"m": 1}, LIVE)
    applied.remember(DEPLOYMENT, {"m": 1}, LIVE)
    assert applied.is_current(DEPLOYMENT, {"m": 1}, LIVE)
    assert not applied.is_current(DEPLOYMENT, {"m": 2}, LIVE)
    assert not applied.is_current(DEPLOYMENT, {"m": 1}, LIVE | {"spec": {}})
    assert not applied.is_current(DEPLOYMENT, {"m": 1}, None)
    applied.forget(DEPLOYMENT)
    assert not applied.is_current(DEPLOYMENT, {"m": 1}, LIVE)


def test_what_a_spec_names_is_looked_for_once() -> None:
    named = references(
        pool(
            model={"uri": "pvc://w/m", "hfTokenSecretRef": {"name": "hf"}},
            engine={
                "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "k"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "maybe", "key": "k", "optional": True}}},
                ],
                "envFrom": [{"secretRef": {"name": "all"}}],
            },
            lora={"adapters": [{"name": "a", "uri": "pvc://w/a"}]},
            storage={"cache": {"type": "ExistingClaim", "claimName": "cache"}},
            index={"url": "redis://r", "passwordSecretRef": {"name": "pw"}},
            routing={"gateway": {"httpRoute": {"create": True, "parentRefs": [{"name": "g", "namespace": "infra"}]}}},
        )
    )
    assert [(one.ref.kind, one.ref.name) for one in named] == [
        ("Secret", "hf"),
        ("Secret", "all"),
        ("Secret", "pw"),
        ("PersistentVolumeClaim", "w"),
        ("PersistentVolumeClaim", "cache"),
        ("Gateway", "g"),
    ]
    assert named[-1] == Reference(Ref("gateway.networking.k8s.io/v1", "Gateway", "g"), "infra")
