"""Refusals that the stream itself decides."""

from multipick_epp.extproc.pick import NoPick
from multipick_epp.requests.errors import api_of, error_body, retry_after


def too_large(path: str, limit_bytes: int) -> NoPick:
    """413: the body is larger than the picker lets through."""
    message = f"The request body is larger than {limit_bytes} bytes."
    return NoPick(413, error_body(api_of(path), 413, message), "body_too_large")


def draining(path: str) -> NoPick:
    """503: this picker is going away and can't wait for the rest of the request."""
    message = "The endpoint picker is restarting. Please try again."
    return NoPick(503, error_body(api_of(path), 503, message), "draining", retry_after(1))
