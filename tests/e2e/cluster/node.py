"""A node for the API server: containerd, kubelet, kube-proxy, the scheduler and CoreDNS, as processes of this machine.

Pods are real containers with probes, hooks, grace periods and Services. Needs root on Linux and what `packages.py`
names. Everything that `start` made, `stop` unmakes: processes, containers, mounts, the bridge, iptables chains. One
node a machine at a time, since these are not in a namespace of their own.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cluster.apiserver import SERVICES, ApiServer, end
from cluster.build import NODE, binaries
from cluster.packages import PLUGINS

BRIDGE = "multipick0"
ADDRESS = "10.88.0.1"
PODS = "10.88.0.0/16"
NAME = "node"
PAUSE = "localhost/pause:1"


@dataclass(slots=True)
class Node:
    """Invariant: `processes` holds what this object started and has not yet ended, in the order of starting."""

    folder: Path
    resources: Mapping[str, int]  # extended ones that the node claims to have
    server: ApiServer = field(init=False)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    programs: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server = ApiServer(self.folder / "api", ADDRESS)

    @property
    def socket(self) -> Path:
        """containerd's."""
        return self.folder / "containerd.sock"

    def start(self, crds: Sequence[Mapping[str, Any]] = ()) -> None:
        """Start everything and wait until the node is Ready. Raises UnavailableError without Go to build it with."""
        self.programs = binaries(NODE)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._bridge()
        self.server.start(crds)
        self._containerd()
        self.load(_pause_image(self.folder / "pause.tar"))
        self._kubelet()
        kubeconfig = str(self.server.kubeconfig)
        self._run(
            "scheduler", "kube-scheduler", f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"
        )
        self._run(
            "proxy",
            "kube-proxy",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={NAME}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={PODS}",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
            f"--metrics-bind-address={ADDRESS}:10249",
            f"--healthz-bind-address={ADDRESS}:10256",
        )
        self._dns()
        self._wait_ready()
        resources = {name: str(count) for name, count in self.resources.items()}
        self.server.request(
            "PATCH",
            f"/api/v1/nodes/{NAME}/status",
            {"status": {"capacity": resources, "allocatable": resources}},
            "application/merge-patch+json",
        )

    def load(self, archive: Path) -> None:
        """Give the node an image, as `docker save` or `buildah push docker-archive:` wrote it."""
        self._ctr("images", "import", str(archive))

    def stop(self) -> None:
        """End it all, the containers too."""
        if not self.programs:
            return  # nothing could be started
        for process in reversed([one for one in self.processes if "containerd" not in str(one.args)]):
            end(process)
        with contextlib.suppress(subprocess.CalledProcessError):
            for task in self._ctr("tasks", "list", "--quiet").split():
                with contextlib.suppress(subprocess.CalledProcessError):
                    self._ctr("tasks", "kill", "--signal", "9", task)
        self.server.stop()
        for process in reversed(self.processes):
            end(process)
        self.processes.clear()
        self._end_shims()
        for mount in _mounts_below(self.folder):
            subprocess.run(["umount", "--lazy", mount], check=False)
        _quiet("ip", "link", "delete", BRIDGE)
        _quiet("ip", "route", "delete", "unreachable", SERVICES)
        for table in ("nat", "filter", "mangle"):
            _flush(table)

    def _bridge(self) -> None:
        if subprocess.run(["ip", "link", "show", BRIDGE], capture_output=True, check=False).returncode:
            _must("ip", "link", "add", BRIDGE, "type", "bridge")
            _must("ip", "address", "add", f"{ADDRESS}/16", "dev", BRIDGE)
        _must("ip", "link", "set", BRIDGE, "up")
        # until kube-proxy knows a Service, what is sent to it must not leave the machine
        _must("ip", "route", "replace", "unreachable", SERVICES)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def _containerd(self) -> None:
        network = self.folder / "cni"
        network.mkdir(exist_ok=True)
        bridge = {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(self.folder / "ipam"),
                "ranges": [[{"subnet": PODS, "gateway": ADDRESS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        conflist = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}],
        }
        (network / "10-pods.conflist").write_text(json.dumps(conflist))
        config = self.folder / "containerd.toml"
        config.write_text(
            f"""version = 3
root = "{self.folder / "containerd"}"
state = "{self.folder / "containerd-state"}"
[grpc]
address = "{self.socket}"
[ttrpc]
address = "{self.socket}.ttrpc"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
disable_apparmor = true
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{PLUGINS}"]
conf_dir = "{network}"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
"""
        )
        self._run("containerd", "containerd", "--config", str(config))
        _eventually(lambda: bool(self._ctr("version")), 30, "containerd does not answer")

    def _kubelet(self) -> None:
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "clusterDNS": [ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": "",
            "healthzBindAddress": ADDRESS,
        }
        file = self.folder / "kubelet.yaml"
        file.write_text(yaml.safe_dump(config))
        self._run(
            "kubelet",
            "kubelet",
            f"--config={file}",
            f"--kubeconfig={self.server.kubeconfig}",
            f"--hostname-override={NAME}",
            f"--node-ip={ADDRESS}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'kubelet-certs'}",
        )

    def _dns(self) -> None:
        corefile = self.folder / "Corefile"
        corefile.write_text(
            f".:53 {{\n  bind {ADDRESS}\n  kubernetes cluster.local {{\n    kubeconfig {self.server.kubeconfig}\n"
            "    ttl 1\n  }\n}\n"
        )
        self._run("dns", "coredns", "-conf", str(corefile))

    def _wait_ready(self) -> None:
        def ready() -> bool:
            for node in self.server.request("GET", "/api/v1/nodes")["items"]:
                for condition in node["status"].get("conditions", []):
                    if condition["type"] == "Ready" and condition["status"] == "True":
                        return True
            return False

        try:
            _eventually(ready, 60, "the node is not Ready")
        except TimeoutError as error:
            log = (self.folder / "kubelet.log").read_text()[-2000:]
            self.stop()
            raise RuntimeError(f"{error}:\n{log}") from error

    def _end_shims(self) -> None:
        """Shims outlive containerd: end those whose socket or state lies below our folder."""
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"containerd-shim" in words[0] and str(self.socket).encode() in b" ".join(words):
                    os.kill(int(entry.name), 9)

    def _ctr(self, *arguments: str) -> str:
        command = [str(self.programs["ctr"]), "--address", str(self.socket), "--namespace", "k8s.io", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _run(self, name: str, program: str, *arguments: str) -> None:
        path = f"{self.programs['containerd'].parent}:{os.environ['PATH']}"  # containerd looks for its shim there
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    [self.programs[program], *arguments],
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    env=os.environ | {"PATH": path},
                )
            )


def _pause_image(archive: Path) -> Path:
    """An image whose only program sleeps: busybox, which is static."""
    busybox = shutil.which("busybox")
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(str(busybox), "bin/sleep")
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "infinity"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer.getvalue())}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        for name, content in (
            ("layer.tar", layer.getvalue()),
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _mounts_below(folder: Path) -> list[str]:
    """Mount points, the innermost first."""
    lines = Path("/proc/mounts").read_text().splitlines()
    return sorted((line.split()[1] for line in lines if line.split()[1].startswith(f"{folder}/")), reverse=True)


def _flush(table: str) -> None:
    """Delete the chains that Kubernetes and CNI made, and the rules that lead to them."""
    listed = subprocess.run(["iptables", "-t", table, "-S"], capture_output=True, text=True, check=False).stdout
    ours = [line.split()[1] for line in listed.splitlines() if line.startswith(("-N KUBE-", "-N CNI-"))]
    for line in listed.splitlines():
        words = line.split()
        if words[0] == "-A" and words[1] not in ours and any(word in ours for word in words):
            _quiet("sh", "-c", f"iptables -t {table} {line.replace('-A', '-D', 1)}")
    for flag in ("-F", "-X"):
        for chain in ours:
            _quiet("iptables", "-t", table, flag, chain)


def _eventually(look: Any, seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(subprocess.CalledProcessError):
            if look():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.1)


def _must(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _quiet(*command: str) -> None:
    subprocess.run(command, check=False, capture_output=True)
