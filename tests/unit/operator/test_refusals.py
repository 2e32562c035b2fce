"""What the API server says no to, and what follows from it for the pool."""

import pytest
from multipick_operator.children import Ref
from multipick_operator.cluster.client import ApiError
from multipick_operator.making import Turn

DEPLOYMENT = Ref("apps/v1", "Deployment", "p-engine")
WEBHOOK = 'Internal error occurred: failed calling webhook "validate.kyverno.svc": connection refused'
SCHEMA = "failed to create typed patch object (ml/p-engine; apps/v1, Kind=Deployment): field not declared in schema"


@pytest.mark.parametrize(
    ("status", "message", "reason", "retry_s"),
    [
        (422, "spec.replicas: must not be negative", "InvalidSpec", None),
        (400, "quantities must match the regular expression", "InvalidSpec", None),
        (500, SCHEMA, "InvalidSpec", None),
        (500, WEBHOOK, "ServerError", 30.0),
        (500, "etcdserver: request timed out", "ServerError", 30.0),
        (403, "exceeded quota: few", "Forbidden", 30.0),
        (404, "namespaces not found", "NotFound", 30.0),
        (409, "Operation cannot be fulfilled on resourcequotas: the object has been modified", "Conflict", 5.0),
    ],
)
def test_a_refusal_says_whose_fault_it_is_and_is_tried_again_unless_it_is_the_specs(
    status: int, message: str, reason: str, retry_s: float | None
) -> None:
    turn = Turn()
    for _ in range(2):
        turn.refused(DEPLOYMENT, ApiError(status, "", message))
    assert [(one.kind, one.name, one.reason, one.message) for one in turn.refusals] == [
        ("Deployment", "p-engine", reason, message)
    ]
    assert turn.retry_s == retry_s
