"""Credentials of the API server: the pod's service account, else the user's kubeconfig.

As the official package reads them: exec plugins, OIDC, `proxy-url`, client certificates, the rotation of a pod's token.
It is imported where it is used first: a program's `--help` need not have its memory.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import kopf

if TYPE_CHECKING:
    from kubernetes.aio.client import Configuration

Login = Callable[[], Awaitable["Configuration"]]


class LoginError(Exception):
    """Nothing gives access to a cluster."""


async def login() -> "Configuration":
    """Read the credentials anew. Raises LoginError."""
    from kubernetes.aio import client, config

    found = client.Configuration()
    try:
        config.load_incluster_config(found)  # type: ignore[no-untyped-call]
    except config.ConfigException as in_cluster:
        try:
            await config.load_kube_config(client_configuration=found)  # type: ignore[no-untyped-call]
        except Exception as kubeconfig:  # of a user's file, and of programs that it names: whatever can be wrong
            raise LoginError(
                f"neither a service account ({in_cluster}) nor a kubeconfig ({kubeconfig}) gives access to a cluster"
            ) from kubeconfig
    return found


async def connection_info(configuration: "Configuration") -> kopf.ConnectionInfo:
    """The same credentials as kopf takes them; asked for again whenever the API server refuses them."""
    scheme, _, token = (await configuration.get_api_key_with_prefix("BearerToken") or "").partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme.capitalize() or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
        trust_env=True,
    )
