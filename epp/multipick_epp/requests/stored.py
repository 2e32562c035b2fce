"""Responses that an engine keeps (`/v1/responses`): which one a request names, and the name that a new one gets.

An engine keeps them in one process's memory, under the id that the request's body has in `request_id`, if it has one
(vLLM 0.32, `entrypoints/openai/responses/protocol.py`; SGLang has the field, too). So where the client gave none, the
endpoint is written into it: whoever is asked for that response later knows where it is, without any store.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple
from uuid import uuid4

import msgspec

from multipick_epp.requests.errors import api_of
from multipick_epp.requests.prompt import Api
from multipick_epp.types import Endpoint, address_of

_OF_A_RESPONSE = re.compile(r"/v1/responses/([^/?]{1,512})(?:/[a-z_]{1,64})?/?(?:\?.*)?\Z", re.DOTALL)
_NAME = re.compile(r"resp_([0-9a-f]{12})_[0-9a-f]{32}")
_BEGIN = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\{[ \t\r\n]*")
_TAG_BYTES = 6


class Stored(NamedTuple):
    """What a request has to do with stored responses."""

    continues: str | None = None  # the response that it names
    nameless: bool = False  # it makes a new one, to which the client gave no name


class _Body(msgspec.Struct):
    previous_response_id: str | None = None
    request_id: msgspec.Raw = msgspec.Raw()


_body = msgspec.json.Decoder(_Body)


def stored(method: str, path: str, body: bytes | None) -> Stored | None:
    """None for a request that has nothing to do with them, or whose body is none that engines take."""
    api = api_of(path)
    if api is Api.OTHER or method != "POST" or body is None:
        named = _OF_A_RESPONSE.search(path)
        return Stored(named[1]) if named else None
    if api is not Api.RESPONSES:
        return None
    try:
        sent = _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Stored(sent.previous_response_id, not bytes(sent.request_id))


class ResponseNames:
    """The names of one pool's new responses. A name tells where it is to whoever has the secret, and nobody else."""

    def __init__(self, secret: bytes, pool: str) -> None:
        """`secret` is the pool's, of any length; without one, who knows the pool's name can guess endpoints."""
        self._key = blake2b(pool.encode(), key=blake2b(secret).digest()).digest()
        self._tag = lru_cache(maxsize=8192)(self._make_tag)

    def name(self, endpoint: Endpoint) -> str:
        """Of a response that will be at `endpoint`, of whose ranks none keeps it by itself."""
        return f"resp_{self._tag(address_of(endpoint))}_{uuid4().hex}"

    def address_of(self, name: str, endpoints: Iterable[Endpoint]) -> Endpoint | None:
        """Where the response is; None where it is at none of `endpoints`, or the name is none of ours."""
        parts = _NAME.fullmatch(name)
        if parts is None:
            return None
        return next((address for address in map(address_of, endpoints) if self._tag(address) == parts[1]), None)

    def _make_tag(self, address: Endpoint) -> str:
        return blake2b(address.encode(), key=self._key, digest_size=_TAG_BYTES).hexdigest()


def with_name(body: bytes, name: str) -> bytes | None:
    """The body of a request whose response shall have this name; None for one that is no JSON object in UTF-8."""
    begin = _BEGIN.match(body)
    if begin is None:
        return None
    rest = body[begin.end() :]
    member = b'"request_id":"%s"' % name.encode()
    return body[: begin.end()] + member + (b"" if rest.startswith(b"}") else b",") + rest
