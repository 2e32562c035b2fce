"""A real kube-apiserver with etcd and the controller manager: without a node (`node.py`) pods stay Pending.

Ports are free ones of its address, all files are in one folder, and `stop` ends the processes that `start` began.
"""

import json
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cluster.build import API_SERVER, binaries
from multipick_sim.local.processes import held_port

SERVICES = "10.96.0.0/16"


@dataclass(slots=True)
class ApiServer:
    """The running server. Invariant: `processes` holds exactly what this object started and has not yet ended."""

    folder: Path
    address: str = "127.0.0.1"  # a node's pods need one that they can reach
    port: int = 0
    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)  # of the administrator
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    keepers: list[socket.socket] = field(default_factory=list, repr=False)  # of its ports, until it ends

    @property
    def url(self) -> str:
        """Where it listens (https, self-signed)."""
        return f"https://{self.address}:{self.port}"

    @property
    def ca(self) -> Path:
        """The certificate that it is verified with."""
        return self.folder / "certs" / "apiserver.crt"

    @property
    def kubeconfig(self) -> Path:
        """An administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    def start(self, crds: Sequence[Mapping[str, Any]] = (), flags: Sequence[str] = ()) -> None:
        """Start all three and wait until the server is ready. Raises UnavailableError, or RuntimeError with a log.

        `flags` are more of the API server's. `crds` come before the controllers: the garbage collector learns of later
        ones only every 30 s.
        """
        programs = binaries(API_SERVER)
        self.folder.mkdir(parents=True, exist_ok=True)
        held = [held_port(host) for host in ("127.0.0.1", "127.0.0.1", self.address)]  # etcd's two, and its own
        client, peer, self.port = (port for port, _ in held)
        self.keepers += [keeper for _, keeper in held]
        (self.folder / "tokens").write_text(f'{self.token},admin,admin,"system:masters"\n')
        key = self.folder / "sa.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        self._run(
            "etcd",
            programs["etcd"],
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
            "--log-level=error",
        )
        self._run(
            "apiserver",
            programs["kube-apiserver"],
            f"--etcd-servers=http://127.0.0.1:{client}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder / 'certs'}",
            f"--token-auth-file={self.folder / 'tokens'}",
            "--authorization-mode=RBAC",
            "--allow-privileged",
            "--kubelet-preferred-address-types=InternalIP",  # node names resolve nowhere
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--service-cluster-ip-range={SERVICES}",
            # 127.0.0.1 is no address for an endpoint
            f"--endpoint-reconciler-type={'none' if self.address == '127.0.0.1' else 'lease'}",
            *flags,
        )
        self._write_kubeconfig()
        self._wait_ready()
        for crd in crds:
            self.install(crd)
        self._run(
            "controllers",
            programs["kube-controller-manager"],
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            f"--service-account-private-key-file={key}",
            f"--root-ca-file={self.ca}",
            "--use-service-account-credentials=false",
            "--secure-port=0",
        )

    def stop(self) -> None:
        """End the processes, the last started first."""
        for process in reversed(self.processes):
            end(process)
        self.processes.clear()
        for keeper in self.keepers:
            keeper.close()
        self.keepers.clear()

    def request(self, method: str, path: str, body: object = None, content: str = "application/json") -> Any:
        """One call as the administrator. Raises urllib.error.HTTPError."""
        return json.loads(self._call(method, path, body, content))

    def read(self, path: str) -> bytes:
        """What is no JSON, as a log. Raises as `request` does."""
        return self._call("GET", path)

    def apply(self, path: str, manifest: object) -> Any:
        """Server-side apply as `tests`."""
        return self.request("PATCH", f"{path}?fieldManager=tests&force=true", manifest, "application/apply-patch+yaml")

    def install(self, crd: Mapping[str, Any]) -> None:
        """Apply a CustomResourceDefinition and wait until its objects can be listed."""
        self.apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}", crd)
        version = next(one["name"] for one in crd["spec"]["versions"] if one["served"])
        path = f"/apis/{crd['spec']['group']}/{version}/{crd['spec']['names']['plural']}"
        deadline = time.monotonic() + 30
        while True:
            try:
                self.request("GET", path)
            except urllib.error.HTTPError:  # 404 at first, then 429 while the storage is made
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def _call(self, method: str, path: str, body: object = None, content: str = "application/json") -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        request.add_header("authorization", f"Bearer {self.token}")
        request.add_header("content-type", content)
        context = ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(request, context=context, timeout=30) as response:
            answer: bytes = response.read()
            return answer

    def _run(self, name: str, program: Path, *arguments: str) -> None:
        """Start one of the programs; its log goes beside it."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes.append(subprocess.Popen([program, *arguments], stdout=log, stderr=log, cwd=self.folder))

    def _wait_ready(self, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and all(process.poll() is None for process in self.processes):
            try:
                self._call("GET", "/readyz")
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
            else:
                return
        log = (self.folder / "apiserver.log").read_text()[-2000:]
        self.stop()
        raise RuntimeError(f"the API server is not ready:\n{log}")

    def _write_kubeconfig(self) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin", "namespace": "default"}}],
            "clusters": [
                {"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}},
            ],
            "users": [{"name": "admin", "user": {"token": self.token}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to go, then make it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
