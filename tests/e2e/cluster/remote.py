"""The API server of a kubeconfig, by its certificates or token."""

import json
import os
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import kopf
from cluster.build import UnavailableError


class Remote:
    """Answers `request` and `apply` as `cluster.apiserver.ApiServer` does."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        os.environ["KUBECONFIG"] = str(kubeconfig)
        found = kopf.login_with_kubeconfig(settings=kopf.OperatorSettings())
        if found is None:
            raise UnavailableError(f"{kubeconfig} gives no access")
        self.url = found.server
        self.headers = found.as_http_headers()
        self.tls = found.as_ssl_context()

    def request(self, method: str, path: str, body: object = None, content: str = "application/json") -> Any:
        """One call as the kubeconfig's user. Raises urllib.error.HTTPError."""
        data = None if body is None else json.dumps(body).encode()  # which is YAML, too
        request = urllib.request.Request(urllib.parse.urljoin(self.url, path), data, method=method)
        for name, value in {**self.headers, "content-type": content}.items():
            request.add_header(name, value)
        with urllib.request.urlopen(request, context=self.tls, timeout=30) as response:
            return json.loads(response.read())

    def apply(self, path: str, manifest: object) -> Any:
        """Server-side apply as `tests`."""
        return self.request("PATCH", f"{path}?fieldManager=tests&force=true", manifest, "application/apply-patch+yaml")
