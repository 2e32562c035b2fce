"""Every sample pool's children, whole: a change shows here first. `python test_golden.py` writes them anew.

The recorded hashes of the engines' pod templates must not change with an operator's release: a changed hash restarts
every GPU pod of every user at the upgrade. A new one is written only where that is meant, and said in the changelog.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from multipick_operator.api.engine import EngineType
from multipick_operator.api.pool import pool_of
from multipick_operator.children import catalogue, desired, ref_of
from multipick_operator.children.context import Context, Defaults

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden"
SAMPLES = sorted((ROOT / "manifests/samples").glob("*.yaml"))
CONTEXT = Context(
    Defaults(
        picker_image="example.com/multipick-epp:1",
        engine_images={
            EngineType.VLLM: "example.com/vllm:1",
            EngineType.SGLANG: "example.com/sglang:1",
            EngineType.SIMULATED: "example.com/multipick-sim:1",
        },
        state_url="redis://multipick-valkey.multipick-system:6379",
        state_password="not a secret",
    ),
    secret_version="7",
)


def children(sample: Path) -> list[dict[str, Any]]:
    pool = yaml.safe_load(sample.read_text())
    pool["metadata"] |= {"namespace": "ml", "uid": "0b5e-uid", "generation": 1}
    return desired(pool_of(pool), CONTEXT)


def template_hashes() -> dict[str, str]:
    hashes = {}
    for sample in SAMPLES:
        for child in children(sample):
            if child["kind"] == "Deployment" and child["metadata"]["name"].endswith("-engine"):
                text = json.dumps(child["spec"]["template"], sort_keys=True)
                hashes[sample.stem] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return hashes


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_children_are_the_recorded_ones(sample: Path) -> None:
    recorded = list(yaml.safe_load_all((GOLDEN / sample.name).read_text()))
    made = children(sample)
    assert [ref_of(child) for child in made] == [ref_of(child) for child in recorded]
    for child, golden in zip(made, recorded, strict=True):
        assert child == golden


def test_pod_templates_keep_their_hashes() -> None:
    assert template_hashes() == json.loads((GOLDEN / "template_hashes.json").read_text())


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_no_child_is_missing_from_the_catalogue(sample: Path) -> None:
    pool = yaml.safe_load(sample.read_text())
    pool["metadata"] |= {"namespace": "ml", "uid": "0b5e-uid", "generation": 1}
    refs = [ref_of(child) for child in children(sample)]
    assert len(set(refs)) == len(refs)
    assert {ref for ref in refs if ref.kind != "ConfigMap"} <= set(catalogue(pool_of(pool)))


if __name__ == "__main__":
    for one in SAMPLES:
        (GOLDEN / one.name).write_text(yaml.safe_dump_all(children(one), sort_keys=False, width=120))
    (GOLDEN / "template_hashes.json").write_text(json.dumps(template_hashes(), indent=2) + "\n")
