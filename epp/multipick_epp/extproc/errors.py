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


def uncheckable(path: str) -> NoPick:
    """400: the body may hold fields that no client may set, and is not JSON, or has too many parts to be sure."""
    message = "The request body mentions fields that clients may not set, and can't be checked for them."
    return NoPick(400, error_body(api_of(path), 400, message), "body_uncheckable")


def unchecked(path: str) -> NoPick:
    """503: there was no time to look for fields that no client may set."""
    message = "The endpoint picker is busy. Please try again."
    return NoPick(503, error_body(api_of(path), 503, message), "body_unchecked", retry_after(1))
