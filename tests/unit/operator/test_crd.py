import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from multipick_operator.api.crd import crd
from multipick_operator.api.pool import PoolSpec, SpecError, decode
from multipick_operator.api.status import CONDITION_TYPES, Status

ROOT = Path(__file__).parents[3]
SAMPLES = sorted((ROOT / "manifests/samples").glob("*.yaml"))


def schema() -> dict[str, Any]:
    found: dict[str, Any] = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def walk(node: object, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every schema object below `node` with its path."""
    found = []
    if isinstance(node, dict):
        if "type" in node or "x-kubernetes-int-or-string" in node:
            found.append((path, node))
        for name, child in node.items():
            if name not in ("default", "enum"):
                found += walk(child, f"{path}.{name}")
    if isinstance(node, list):
        for child in node:
            found += walk(child, path)
    return found


def test_the_committed_files_are_what_the_types_generate() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "manifests/render.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_unknown_fields_are_kept_in_the_pod_template_and_keda_s_triggers_alone() -> None:
    keeping = [path for path, node in walk(schema()) if node.get("x-kubernetes-preserve-unknown-fields")]
    spec = ".properties.spec.properties"
    picker = f"{spec}.routing.properties.picker.properties.podTemplate"
    assert keeping == [f"{spec}.autoscaling.properties.triggers.items", picker, f"{spec}.podTemplate"]


def optional_scalars(node: dict[str, Any], path: str) -> list[str]:
    """Fields that may be left out, and that the API server fills nothing into."""
    found = []
    for name, child in node.get("properties", {}).items():
        scalar = child.get("type") in ("string", "integer", "boolean") or "x-kubernetes-int-or-string" in child
        if scalar and "default" not in child and name not in node.get("required", []):
            found.append(f"{path}.{name}")
        found += optional_scalars(child, f"{path}.{name}")
    return found + (optional_scalars(node["items"], f"{path}[]") if "items" in node else [])


def test_every_field_of_the_spec_says_what_it_does_and_what_it_is_by_default() -> None:
    def fields(node: dict[str, Any], path: str) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for name, child in node.get("properties", {}).items():
            found += [(f"{path}.{name}", child), *fields(child, f"{path}.{name}")]
        return found + (fields(node["items"], f"{path}[]") if "items" in node else [])

    spec = schema()["properties"]["spec"]
    found = fields(spec, "spec")
    assert len(found) > 150
    assert [path for path, node in found if len(node.get("description", "")) < 8] == []
    plain = [(path, node) for path, node in found if "default" in node and "properties" not in node]
    assert [path for path, node in plain if "Default: " not in node["description"]] == []
    assert [path for path in optional_scalars(spec, "spec") if "ot given" not in dict(found)[path]["description"]] == []
    assert dict(found)["spec.engine.port"]["description"].endswith("Default: 8000.")
    requests = dict(found)["spec.routing.picker.resources.requests"]["description"]
    assert requests.endswith('Default: {"cpu": "500m", "memory": "512Mi"}.')


def test_no_field_is_a_float() -> None:
    assert not [path for path, node in walk(schema()) if node.get("type") == "number"]


def test_enums_are_pascal_case() -> None:
    values = [value for _, node in walk(schema()) for value in node.get("enum", [])]
    assert values
    assert all(value[0].isupper() and value.isalnum() for value in values)


def test_an_empty_spec_decodes_to_the_defaults_of_the_schema() -> None:
    spec = schema()["properties"]["spec"]
    defaults = {name: field["default"] for name, field in spec["properties"].items() if "default" in field}
    assert decode(defaults) == PoolSpec()


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_decodes(path: Path) -> None:
    sample = yaml.safe_load(path.read_text())
    assert sample["apiVersion"] == "multipick.dev/v1alpha1"
    decode(sample["spec"])


def test_a_mistake_is_named() -> None:
    with pytest.raises(SpecError, match=r"\$\.engine\.port"):
        decode({"engine": {"port": "http"}})


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"index": {"url": "redis://h:x"}}, r"\$\.index\.url"),
        ({"engine": {"image": "a b"}}, r"\$\.engine\.image"),
        ({"resources": {"limits": {"cpu": "1e9999999999"}}}, r"\$\.resources\.limits"),
    ],
)
def test_what_was_stored_before_the_api_server_refused_it_is_refused_by_its_field(
    spec: dict[str, Any], field: str
) -> None:
    with pytest.raises(SpecError, match=field):
        decode({"model": {"uri": "hf://org/m"}} | spec)


@pytest.mark.parametrize("quantity", ["1e9999999999", "1E+100", " 1.5e-999", "e1000", "9" * 65])
@pytest.mark.parametrize(
    "template",
    [
        lambda quantity: {"spec": {"containers": [{"name": "x", "resources": {"limits": {"memory": quantity}}}]}},
        lambda quantity: {"spec": {"initContainers": [{"resources": {"requests": {"a/b": quantity}}}]}},
        lambda quantity: {"spec": {"resources": {"limits": {"cpu": "1", "memory": quantity}}}},
        lambda quantity: {"spec": {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": quantity}}]}},
        lambda quantity: {
            "spec": {"containers": [{"env": [{"valueFrom": {"resourceFieldRef": {"divisor": quantity}}}]}]}
        },
    ],
)
def test_a_quantity_that_an_api_server_makes_no_end_of_stays_here(
    template: Callable[[str], dict[str, Any]], quantity: str
) -> None:
    with pytest.raises(SpecError, match=r"podTemplate: .* is no quantity"):
        decode({"model": {"uri": "hf://org/m"}, "podTemplate": template(quantity)})
    picker = {"routing": {"picker": {"podTemplate": template(quantity)}}}
    with pytest.raises(SpecError, match=r"routing\.picker\.podTemplate: .* is no quantity"):
        decode({"model": {"uri": "hf://org/m"}} | picker)


def test_other_texts_of_a_template_may_look_like_such_a_quantity() -> None:
    env = {"name": "limits", "value": "1e1000"}
    resources = {"limits": {"memory": "12E2", "cpu": 1}, "requests": {"memory": "1e18"}}
    template = {"spec": {"containers": [{"name": "engine", "env": [env], "resources": resources}]}}
    assert decode({"model": {"uri": "hf://org/m"}, "podTemplate": template}).pod_template == template


def test_the_status_has_room_for_every_condition() -> None:
    conditions = schema()["properties"]["status"]["properties"]["conditions"]
    assert len(CONDITION_TYPES) <= conditions["maxItems"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(schema()["properties"]["status"]["properties"]) == {
        field.encode_name for field in msgspec.structs.fields(Status)
    }
