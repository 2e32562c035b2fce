"""Files that users apply as they are."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from multipick_operator.api.pool import decode

ROOT = Path(__file__).parents[3]
FOLDERS = sorted((ROOT / "manifests/gateways").glob("*/gateway.yaml"))


@pytest.mark.parametrize("file", FOLDERS, ids=lambda path: path.parent.name)
def test_a_gateway_s_example_routes_its_gateway_to_its_pool(file: Path) -> None:
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(file.read_text()))
    (gateway,) = [one for one in documents if one["kind"] == "Gateway"]
    (pool,) = [one for one in documents if one["apiVersion"].startswith("multipick.dev")]
    if own := [one for one in documents if one["kind"] == "HTTPRoute"]:  # of a gateway that knows no InferencePool
        parents = [ref["name"] for ref in own[0]["spec"]["parentRefs"]]
        assert own[0]["spec"]["rules"][0]["backendRefs"][0]["name"] == f"{pool['metadata']['name']}-engine"
    else:
        route = decode(pool["spec"]).routing.gateway.http_route
        assert route.create
        parents = [ref.name for ref in route.parent_refs]
    assert parents == [gateway["metadata"]["name"]]


@pytest.mark.parametrize("program", ["operator", "epp"])
def test_an_image_runs_as_nobody_and_from_a_base_of_the_builder_s_choice(program: str) -> None:
    text = (ROOT / f"docker/{program}.Dockerfile").read_text()
    assert "ARG BASE=" in text
    assert text.count("FROM ${BASE}") == 2
    assert "USER 65532:65532" in text
