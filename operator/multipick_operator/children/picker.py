"""The pickers: their Deployment, Services, Secret, identity and rights."""

import base64
import hashlib
import hmac

import yaml

from multipick_operator.api.crd import GROUP
from multipick_operator.api.pool import Pool
from multipick_operator.children import capture
from multipick_operator.children.configuration import (
    ADMIN_PORT,
    HEALTH_PORT,
    configuration,
    tokenizer_of,
    variables,
)
from multipick_operator.children.context import Context
from multipick_operator.children.merge import merge
from multipick_operator.children.names import (
    PICKER,
    Manifest,
    manifest,
    picker_name,
    picker_pods_name,
    selector,
    without_nothing,
)
from multipick_operator.children.pod import LOCKED_DOWN, SHUTDOWN_MARGIN_S, grace_seconds
from multipick_operator.children.store_user import user_password
from multipick_operator.children.tls import EXT_PROC_PORT, service_ports
from multipick_operator.quantities import times

ROLLOUT_S = 180  # to be ready, and then it is said to be stuck
USER = 65532
CONFIG_FOLDER = "/etc/multipick"
SECRETS = f"{GROUP}/secrets"
CLASSES = f"{GROUP}/gateway-classes"

GATEWAYS_LEARN_S = 10
"""From a new picker's readiness until gateways ask it: the chart's Envoy resolves names each 2 s, name servers keep
them for 5 s, a first health check follows. A pool's only picker would be gone before its successor is known.
(What pickers know of caches needs no pause: who is ready can take over, and who ends waits until others have.)
"""

GATEWAYS_FORGET_S = 5
"""From a picker's deletion until gateways that watch the API server ask it nothing more; only then SIGTERM."""


def pickers(pool: Pool, context: Context) -> list[Manifest]:
    """Everything about the pickers."""
    config = yaml.safe_dump(configuration(pool, context), sort_keys=True)
    name = f"{picker_name(pool)}-{hashlib.sha256(config.encode()).hexdigest()[:10]}"
    secrets = _secret(pool, context)
    return [
        *secrets,
        # a picker that runs keeps the configuration that it was started with, whatever becomes of the next one
        manifest(pool, "v1", "ConfigMap", name, PICKER, immutable=True, data={"epp.yaml": config}),
        manifest(pool, "v1", "ServiceAccount", picker_name(pool), PICKER, automountServiceAccountToken=False),
        *_rights(pool),
        *_services(pool, context),
        _deployment(pool, context, name, context.stamp or _stamp(context.secret_version, secrets)),
    ]


def known_stamp(deployment: Manifest | None) -> str:
    """Of the secrets, as the pickers were last made with them."""
    meta = deployment["spec"]["template"].get("metadata", {}) if deployment else {}
    return str(meta.get("annotations", {}).get(SECRETS, ""))


def known_classes(service: Manifest | None) -> list[str]:
    """Of the Gateways, as the pickers were last made for them."""
    noted = service["metadata"].get("annotations", {}).get(CLASSES, "") if service else ""
    return [one for one in noted.split(",") if one]


def _deployment(pool: Pool, context: Context, config: str, stamp: str) -> Manifest:
    picker = pool.spec.routing.picker
    base = {
        "metadata": {
            "labels": {
                "app.kubernetes.io/name": "multipick",
                "app.kubernetes.io/component": PICKER,
                **selector(pool, PICKER),
            },
            "annotations": {SECRETS: stamp},  # changed ones roll the pickers
        },
        "spec": _pod(pool, context, config),
    }
    template = merge(base, picker.pod_template, "routing.picker.podTemplate")
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels |= selector(pool, PICKER)  # last, so that no template can move the pods out of their Deployment's selector
    spec = {
        "replicas": picker.replicas,
        "selector": {"matchLabels": selector(pool, PICKER)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "minReadySeconds": GATEWAYS_LEARN_S,
        "revisionHistoryLimit": 0,  # an older one's configuration is gone
        "progressDeadlineSeconds": ROLLOUT_S,
        "template": template,
    }
    return manifest(pool, "apps/v1", "Deployment", picker_name(pool), PICKER, spec=spec)


def _pod(pool: Pool, context: Context, config: str) -> Manifest:
    picker = pool.spec.routing.picker
    tokenizer = tokenizer_of(pool)
    policy = picker.image_pull_policy or context.defaults.picker_image_pull_policy
    container = {
        "name": PICKER,
        "image": picker.image or context.defaults.picker_image,
        "imagePullPolicy": policy and policy.value,
        "command": ["multipick", "epp"],
        "args": ["--config", f"{CONFIG_FOLDER}/epp.yaml"],
        "env": variables(pool, context),
        "ports": [
            {"name": "grpc-ext-proc", "containerPort": EXT_PROC_PORT, "protocol": "TCP"},
            {"name": "grpc-health", "containerPort": HEALTH_PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"},
        ],
        "resources": without_nothing(
            {
                kind: {name: times(quantity, picker.workers) for name, quantity in each.items()}
                for kind, each in (("requests", picker.resources.requests), ("limits", picker.resources.limits))
            }
        ),
        "readinessProbe": _probe("readiness") | {"periodSeconds": 2},
        "livenessProbe": _probe("liveness") | {"periodSeconds": 10, "failureThreshold": 5, "initialDelaySeconds": 10},
        "lifecycle": {"preStop": {"sleep": {"seconds": GATEWAYS_FORGET_S}}},
        "securityContext": LOCKED_DOWN | {"readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
            *([tokenizer.mount] if tokenizer and tokenizer.mount else []),
            *([capture.MOUNT] if picker.capture else []),
        ],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return without_nothing(
        {
            "serviceAccountName": picker_name(pool),
            "automountServiceAccountToken": True,  # it watches the pool's pods
            "enableServiceLinks": False,
            # streams end with their answers: a picker outlives the pods that it sent them to
            "terminationGracePeriodSeconds": GATEWAYS_FORGET_S
            + max(grace_seconds(pool), picker.drain_timeout_seconds)
            + SHUTDOWN_MARGIN_S,
            "securityContext": {
                "runAsNonRoot": True,
                **(dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), USER) if context.defaults.fixed_ids else {}),
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "imagePullSecrets": [{"name": name} for name in picker.image_pull_secrets],
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": selector(pool, PICKER)},
                }
            ],
            "containers": [without_nothing(container)],
            "volumes": [
                {"name": "config", "configMap": {"name": config}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
                *([tokenizer.volume] if tokenizer and tokenizer.volume else []),
                *([capture.volume(picker.capture)] if picker.capture else []),
            ],
        }
    )


def _services(pool: Pool, context: Context) -> list[Manifest]:
    """One address for all pickers, which the Gateway API's object names, and one name for the address of each.

    A gateway that balances by itself needs the second: behind one address it keeps to one picker a connection, and
    can't tell a dead one from the others.
    """
    ports = [
        *service_ports(pool, context),
        {"name": "grpc-health", "port": HEALTH_PORT, "targetPort": "grpc-health", "protocol": "TCP"},
        {"name": "admin", "port": ADMIN_PORT, "targetPort": "admin", "protocol": "TCP"},
    ]
    spec = {"selector": selector(pool, PICKER), "ports": ports}
    service = manifest(pool, "v1", "Service", picker_name(pool), PICKER, spec=spec)
    if context.gateway_classes:
        service["metadata"]["annotations"] = {CLASSES: ",".join(context.gateway_classes)}
    return [
        service,
        manifest(pool, "v1", "Service", picker_pods_name(pool), PICKER, spec={"clusterIP": "None"} | spec),
    ]


def _rights(pool: Pool) -> list[Manifest]:
    name = picker_name(pool)
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    return [
        manifest(pool, "rbac.authorization.k8s.io/v1", "Role", name, PICKER, rules=rules),
        manifest(
            pool,
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            name,
            PICKER,
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            subjects=[{"kind": "ServiceAccount", "name": name, "namespace": pool.namespace}],
        ),
    ]


def _secret(pool: Pool, context: Context) -> list[Manifest]:
    """The password of the pool's user of the shared store, and a seed for block keys that no other pool has.

    In the pool's own namespace: a pod can't read a Secret of another. A pool with an `index` of its own brings its own
    Secret.
    """
    password = context.defaults.state_password
    if pool.spec.index or not password:
        return []
    seed = hmac.new(password.encode(), f"block keys of {pool.uid}".encode(), hashlib.sha256).hexdigest()
    data = {"password": _base64(user_password(pool, context) or password), "seed": _base64(seed)}
    return [manifest(pool, "v1", "Secret", picker_name(pool), PICKER, type="Opaque", data=data)]


def _probe(service: str) -> Manifest:
    return {"grpc": {"port": HEALTH_PORT, "service": service}, "timeoutSeconds": 2}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _stamp(version: str, secrets: list[Manifest]) -> str:
    parts = [version, *[str(one["data"]) for one in secrets]]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
