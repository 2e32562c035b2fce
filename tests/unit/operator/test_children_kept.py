"""Which kinds are watched, what was applied, what a spec names: what spares reads and writes."""

from typing import Any

import pytest
from multipick_operator.api.pool import pool_of
from multipick_operator.applied import Applied, fingerprint
from multipick_operator.children import Ref, catalogue
from multipick_operator.cluster.kinds import WATCHED, resource_of
from multipick_operator.references import Reference, references

DEPLOYMENT = Ref("apps/v1", "Deployment", "a")


def pool(**spec: Any) -> Any:
    return pool_of({"metadata": {"namespace": "ml", "name": "p", "uid": "u", "generation": 1}, "spec": spec})


def test_every_child_has_a_plural_and_all_but_secrets_are_watched() -> None:
    watched = {(one.api_version, one.kind) for one in WATCHED}
    for ref in catalogue(pool()):
        assert resource_of(ref.api_version, ref.kind)["name"]
        assert ((ref.api_version, ref.kind) in watched) == (ref.kind != "Secret")


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


def test_what_a_template_names_must_exist_too() -> None:
    template = {
        "spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "files"}},
                {"name": "b", "configMap": {"name": "settings"}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "weights"}},
                {"name": "d", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
                {"name": "e", "configMap": {"name": "maybe", "optional": True}},
            ],
            "containers": [
                {
                    "name": "engine",
                    "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "keys", "key": "k"}}}],
                    "envFrom": [{"secretRef": {"name": "all"}}, {"configMapRef": {"name": 7}}, "odd"],
                }
            ],
        }
    }
    found = {(one.ref.kind, one.ref.name) for one in references(pool(podTemplate=template))}
    assert found == {
        ("Secret", "pull"),
        ("Secret", "files"),
        ("Secret", "projected"),
        ("Secret", "all"),
        ("ConfigMap", "settings"),
        ("ConfigMap", "keys"),
        ("PersistentVolumeClaim", "weights"),
    }
    odd = pool(podTemplate={"spec": {"imagePullSecrets": {"name": ["x"]}, "volumes": "x"}})
    assert references(odd) == []
    named = pool(
        engine={
            "imagePullSecrets": ["registry"],
            "env": [{"name": "B", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}],
        }
    )
    assert [one.ref.name for one in references(named)] == ["registry", "m"]
