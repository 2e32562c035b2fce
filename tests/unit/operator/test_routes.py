from collections.abc import Callable
from typing import Any

import pytest
from multipick_operator.api.pool import Pool
from multipick_operator.children import desired
from multipick_operator.children.context import Context

MakePool = Callable[..., Pool]


def child(pool: Pool, context: Context, kind: str, name: str) -> dict[str, Any]:
    return next(c for c in desired(pool, context) if (c["kind"], c["metadata"]["name"]) == (kind, name))


@pytest.mark.parametrize(
    ("prefix", "told", "engines_get"),
    [
        ("/v1", None, None),
        ("/", None, None),
        ("/v1/chat", None, None),
        ("/generate", None, None),
        ("/demo", None, "/"),
        ("/demo/", None, "/"),
        ("/team/demo/v1", None, "/v1"),
        ("/v1beta", None, "/"),
        ("/demo", "/demo", "/demo"),
        ("/demo", "/v2", "/v2"),
    ],
)
def test_a_prefix_that_no_engine_knows_is_rewritten(
    prefix: str, told: str | None, engines_get: str | None, make_pool: MakePool, context: Context
) -> None:
    route = {"create": True, "parentRefs": [{"name": "g"}], "pathPrefix": prefix}
    pool = make_pool(routing={"gateway": {"httpRoute": route | ({"rewritePathPrefix": told} if told else {})}})
    (rule,) = child(pool, context, "HTTPRoute", "p")["spec"]["rules"]
    found = [one["urlRewrite"]["path"]["replacePrefixMatch"] for one in rule.get("filters", [])]
    assert found == ([engines_get] if engines_get else [])
