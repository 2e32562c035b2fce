"""Credentials of the API server: the pod's service account, else the user's kubeconfig."""

import logging

import kopf

log = logging.getLogger(__name__)


def login() -> kopf.ConnectionInfo:
    """Read them anew: a service account's token is replaced about every hour. Raises kopf.LoginError without any.

    A kubeconfig with an exec plugin or an auth provider can't be read; in a cluster there is none.
    """
    settings = kopf.OperatorSettings()
    found = kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)
    if found is None:
        raise kopf.LoginError("neither a service account nor a kubeconfig gives access to a cluster")
    return found
