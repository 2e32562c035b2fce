"""HTTP request -> `Prompt`, as the engine will understand it.

In: path, headers and body of one request. Out: `Prompt`, or `Unread` with the reason: what we can't read is routed by
load, never refused. One parser an API family, each with the rules of vLLM 0.32's own conversion, recorded in
tests/unit/requests. Also the shape of an error in the client's API. Called by the picker; knows no tokenizer.
"""

from multipick_epp.requests.parse import parse

__all__ = ["parse"]
