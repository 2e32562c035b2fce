"""The door to the API server."""

import pytest
from multipick_operator.children import Ref
from multipick_operator.cluster.client import Kube


async def nobody() -> object:
    raise AssertionError("the API server is asked")


@pytest.mark.parametrize(
    "name", ["../../other/secrets/theirs", "a/b", "..", ".", "", "a?watch=true", "a%2fb", "A", "a\n", "a b", "ä", "-a"]
)
@pytest.mark.parametrize("kind", ["Secret", "ConfigMap", "PersistentVolumeClaim"])
async def test_what_is_no_name_names_nothing_and_leads_nowhere_else(kind: str, name: str) -> None:
    """Names come from pod templates too, which no schema checks."""
    assert await Kube(nobody).get(Ref("v1", kind, name), "ml") is None  # type: ignore[arg-type]
