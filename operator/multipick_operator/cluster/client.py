"""The Kubernetes API as this operator uses it: the official dynamic client, with plain dicts and errors of our own."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp

from multipick_operator.children import Ref
from multipick_operator.children.names import MANAGER, Manifest
from multipick_operator.cluster.kinds import ref_of, resource_of
from multipick_operator.cluster.login import Login, LoginError

if TYPE_CHECKING:
    from kubernetes.aio.dynamic import DynamicClient, Resource

CALL_S = 30.0
PAGE = 500  # objects of one answer to a list
WATCH_S = 270  # the API server ends a watch then, and it goes on from where it was
SILENCE_S = WATCH_S + 15  # nothing may be told for as long: bookmarks come only where something happened
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")  # of an object; whatever else stood in a path would be another's
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # a dead peer is noticed after a minute
JSON = "application/json"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml; charset=utf-8"  # with the second part the client sends a text as it is
_OF_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
UNREACHABLE = (aiohttp.ClientError, OSError, TimeoutError, LoginError)


class ApiError(Exception):
    """The API server refused; `status` is the HTTP status, `reason` its word for machines, `message` for people."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class Event(NamedTuple):
    """One event of a watch: ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Manifest


class Kube:
    """One client. Credentials that are refused are read anew once: plugins and OIDC hand out tokens that end.

    Every call raises ApiError, or one of UNREACHABLE where no answer came in time.
    """

    def __init__(self, login: Login) -> None:
        self._login = login
        self._client: DynamicClient | None = None
        self._connector: aiohttp.TCPConnector | None = None
        self._connecting = asyncio.Lock()

    async def get(self, ref: Ref, namespace: str, timeout_s: float = CALL_S) -> Manifest | None:
        """An object, None where there is none, or can be none; of a Secret only its metadata."""
        if not NAME.fullmatch(ref.name):
            return None
        accept = METADATA_ONLY if ref.kind == "Secret" else JSON
        try:
            found: Manifest = await self._call(
                "get", _resource(ref), ref.name, namespace, timeout_s=timeout_s, accept=accept
            )
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        return found

    async def list(
        self, api_version: str, kind: str, namespace: str | None, labels: str = "", fields: str = ""
    ) -> tuple[list[Manifest], str]:
        """All objects that the selectors match, in a namespace or everywhere, and the version of that answer."""
        resource = _resource(Ref(api_version, kind, ""))
        query: dict[str, Any] = {"label_selector": labels or None, "field_selector": fields or None, "limit": PAGE}
        found: list[Manifest] = []
        more = None
        while True:
            page = await self._call("get", resource, None, namespace, _continue=more, **query)
            found += [one | {"apiVersion": api_version, "kind": kind} for one in page["items"]]
            if not (more := page["metadata"].get("continue")):
                return found, page["metadata"]["resourceVersion"]

    async def watch(
        self, api_version: str, kind: str, namespace: str | None, labels: str, version: str
    ) -> AsyncIterator[Event]:
        """What happens after `version`, until the API server ends the answer. A version too old: ApiError 410."""
        resource = _resource(Ref(api_version, kind, ""))
        query: dict[str, Any] = {"label_selector": labels, "resource_version": version, "timeout_seconds": WATCH_S}
        answer = await self._call("get", resource, None, namespace, watch="true", timeout_s=None, **query)
        async with answer:
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error_of(event["object"])
                yield Event(event["type"], event["object"])

    async def apply(self, manifest: Manifest, timeout_s: float = CALL_S) -> Manifest:
        """Server-side apply. Forced: a child's fields that we name are ours, whoever touched them."""
        ref = ref_of(manifest)
        path = _resource(ref).path(ref.name, manifest["metadata"]["namespace"])  # type: ignore[no-untyped-call]
        options: dict[str, Any] = {"field_manager": MANAGER, "force_conflicts": True, "content_type": APPLY}
        done: Manifest = await self._call(
            "request", "patch", path, body=as_yaml(manifest), timeout_s=timeout_s, **options
        )
        return done

    async def create(self, manifest: Manifest, timeout_s: float = CALL_S) -> Manifest:
        """Create an object."""
        resource = _resource(Ref(manifest["apiVersion"], manifest["kind"], ""))
        done: Manifest = await self._call("create", resource, manifest, timeout_s=timeout_s, field_manager=MANAGER)
        return done

    async def replace(self, manifest: Manifest, timeout_s: float = CALL_S) -> Manifest:
        """Replace an object if nobody changed it since (`metadata.resourceVersion`); ApiError 409 otherwise."""
        done: Manifest = await self._call("replace", _resource(ref_of(manifest)), manifest, timeout_s=timeout_s)
        return done

    async def delete(self, ref: Ref, namespace: str, uid: str, timeout_s: float = CALL_S) -> None:
        """Delete just this object, not a new one of the same name."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        await self._call("delete", _resource(ref), ref.name, namespace, body=body, timeout_s=timeout_s)

    async def merge(
        self, ref: Ref, namespace: str, subresource: str, body: Manifest, timeout_s: float = CALL_S
    ) -> Manifest:
        """Merge-patch an object ("") or its subresource; lists are replaced whole."""
        path = _resource(ref).path(ref.name, namespace)  # type: ignore[no-untyped-call]
        path = f"{path}/{subresource}".rstrip("/")
        options: dict[str, Any] = {"content_type": MERGE, "field_manager": MANAGER}
        done: Manifest = await self._call("request", "patch", path, body=body, timeout_s=timeout_s, **options)
        return done

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.client.close()
        if self._connector is not None:
            await self._connector.close()

    async def _call(
        self, method: str, *arguments: Any, timeout_s: float | None = CALL_S, accept: str = JSON, **options: Any
    ) -> Any:
        """The dynamic client's method; the decoded answer, or, of a watch (no timeout), the answer as it comes."""
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=5, sock_read=SILENCE_S)
        streams = timeout_s is None

        async def call(client: "DynamicClient") -> Any:
            # the client writes into headers and query: new ones for each call
            query = [("allowWatchBookmarks", "true")] if streams else []
            how = {"serialize": False} if streams else {"serializer": lambda _, data: data}
            return await getattr(client, method)(
                *arguments,
                header_params={"Accept": accept},
                query_params=query,
                _request_timeout=timeout,
                **how,
                **options,
            )

        client = await self._connected(refused=None)
        try:
            return await _translated(call(client))
        except ApiError as error:
            if error.status != 401:
                raise
        return await _translated(call(await self._connected(refused=client)))

    async def _connected(self, refused: "DynamicClient | None") -> "DynamicClient":
        """The client, made with credentials read anew where there is none or it is the one that was refused."""
        async with self._connecting:
            if self._client is None or self._client is refused:
                from kubernetes.aio.client import ApiClient
                from kubernetes.aio.dynamic import DynamicClient

                configuration = await self._login()
                await self.close()
                # not awaited: that would run discovery, and keep a file of it
                api = await asyncio.to_thread(ApiClient, configuration)
                self._connector = aiohttp.TCPConnector(
                    limit=0, ssl=api.rest_client.ssl_context, socket_factory=_kept_alive
                )
                configuration.client_session_kwargs = {"connector": self._connector}
                self._client = DynamicClient(api)  # type: ignore[no-untyped-call]
            return self._client


def _kept_alive(address: aiohttp.AddrInfoType) -> socket.socket:
    """A watch may be silent for minutes: only the kernel can tell that its peer is gone."""
    family, kind, protocol, *_ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        if hasattr(socket, option):  # not everywhere but on Linux
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made


def as_yaml(manifest: Manifest) -> str:
    """JSON that YAML reads alike: it knows no characters of two escapes, as of an emoji, and breaks lines, or ends, at
    some that JSON leaves as they are.
    """
    return _OF_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(manifest, ensure_ascii=False))


def _resource(ref: Ref) -> "Resource":
    from kubernetes.aio.dynamic import Resource

    return Resource(**resource_of(ref.api_version, ref.kind))  # type: ignore[no-untyped-call]


async def _translated(call: Awaitable[Any]) -> Any:
    from kubernetes.aio.client import ApiException

    try:
        return await call
    except ApiException as error:
        try:
            said = _error_of(json.loads(error.body or ""))
        except (ValueError, AttributeError):
            said = ApiError(error.status or 0, error.reason or "", str(error.body or "")[:300])
        raise said from None


def _error_of(status: Manifest) -> ApiError:
    """From a `Status` of meta/v1."""
    return ApiError(int(status.get("code", 0)), str(status.get("reason", "")), str(status.get("message", "")))
