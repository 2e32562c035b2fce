"""The door to the API server."""

import json

import pytest
import yaml
from multipick_operator.children import Ref
from multipick_operator.cluster.client import Kube, as_yaml


@pytest.mark.parametrize(
    "text", ["\U0001f600", "a\x7fb\x85c\x9f", "\u2028\u2029", "\ufeff\ufffe\uffff", "\\ud83d", 'ä\0\n"']
)
def test_what_is_applied_is_json_and_the_same_to_a_reader_of_yaml(text: str) -> None:
    sent = as_yaml({"a": [text]})
    assert json.loads(sent) == yaml.safe_load(sent) == {"a": [text]}


async def nobody() -> object:
    raise AssertionError("the API server is asked")


@pytest.mark.parametrize(
    "name", ["../../other/secrets/theirs", "a/b", "..", ".", "", "a?watch=true", "a%2fb", "A", "a\n", "a b", "ä", "-a"]
)
@pytest.mark.parametrize("kind", ["Secret", "ConfigMap", "PersistentVolumeClaim"])
async def test_what_is_no_name_names_nothing_and_leads_nowhere_else(kind: str, name: str) -> None:
    """Names come from pod templates too, which no schema checks."""
    assert await Kube(nobody).get(Ref("v1", kind, name), "ml") is None  # type: ignore[arg-type]
