"""The way to the cluster's API server, by the official client: a pod's service account, else a kubeconfig.

The client takes 22 MB and half a second to load, so it is only where pods are watched.
"""

from kubernetes.aio import client, config

from multipick_epp.config import ConfigError


async def api_client() -> client.ApiClient:
    """Tokens of a service account are read again as they rotate. Raises ConfigError where neither is there."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        try:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError) as error:
            raise ConfigError(f"kubernetes: this is no pod, and there is no usable kubeconfig: {error}") from error
    return client.ApiClient(configuration)
