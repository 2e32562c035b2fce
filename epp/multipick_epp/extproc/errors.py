"""Refusals that the stream itself decides, as JSON in the shape of the API that the client called."""

import json

from multipick_epp.pick import NoPick


def too_large(path: str, limit_bytes: int) -> NoPick:
    """413: the body is larger than the picker lets through."""
    message = f"The request body is larger than {limit_bytes} bytes."
    return NoPick(413, _body(path, "request_too_large", message), "body_too_large")


def draining(path: str) -> NoPick:
    """503: this picker is going away and can't wait for the rest of the request."""
    message = "The endpoint picker is restarting. Please try again."
    return NoPick(503, _body(path, "overloaded_error", message), "draining", {"retry-after": "1"})


def _body(path: str, kind: str, message: str) -> bytes:
    if path.partition("?")[0].startswith("/v1/messages"):  # Anthropic
        return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": kind}}).encode()
