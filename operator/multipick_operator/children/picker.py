"""The pickers: their configuration, Deployment, Service, identity and rights."""

import base64
import hashlib
import hmac
from typing import Any

import yaml

from multipick_operator.api.engine import EngineType
from multipick_operator.api.pool import Pool
from multipick_operator.children import capture
from multipick_operator.children.artifacts import Artifact, artifact
from multipick_operator.children.commands import given_arguments, has_kv_connector
from multipick_operator.children.context import Context
from multipick_operator.children.merge import merge
from multipick_operator.children.names import (
    ENGINE,
    PICKER,
    Manifest,
    endpoint_labels,
    manifest,
    picker_name,
    picker_pods_name,
    selector,
    without_nothing,
)
from multipick_operator.children.pod import LOCKED_DOWN, grace_seconds
from multipick_operator.children.store_user import user_password, user_url
from multipick_operator.children.tls import speaks_tls
from multipick_operator.children.token_options import TokenOptions, of_sglang, of_vllm
from multipick_operator.quantities import times

ROLLOUT_S = 180  # to be ready, and then it is said to be stuck
EXT_PROC_PORT = 9002
HEALTH_PORT = 9003
ADMIN_PORT = 9090
USER = 65532
CONFIG_FOLDER = "/etc/multipick"
PASSWORD_ENV = "MULTIPICK_STATE_PASSWORD"
SEED_ENV = "MULTIPICK_KEY_SEED"


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
        _deployment(pool, context, name, _stamp(context.secret_version, *[str(one["data"]) for one in secrets])),
    ]


def configuration(pool: Pool, context: Context) -> dict[str, Any]:
    """`epp.yaml`: fields as in `multipick_epp.config`."""
    spec, picker = pool.spec, pool.spec.routing.picker
    events = spec.engine.kv_events
    tokenizer = _tokenizer(pool)
    token_options = _token_options(pool)
    own_state = context.state_url(pool) is None
    return {
        "pool": without_nothing(
            {
                "name": f"{pool.namespace}/{pool.name}",
                "models": [pool.model_name, *spec.model.aliases],
                "tokenizer": tokenizer and tokenizer.source,
                "block_size": spec.engine.block_size,
                "secret_env": None if spec.index or not context.defaults.state_password else SEED_ENV,
                **token_options.fields,
                "unread_options": [*token_options.unread],
            }
        ),
        "kubernetes": {
            "namespace": pool.namespace,
            "selector": endpoint_labels(pool),
            "ports": list(pool.ports),  # the endpoint of rank r has ports[r], events.port + r, events.replay_port + r
            # restarts of this container make a new epoch; pods that somebody else made may name it anyhow
            "container": None if spec.existing_pods else ENGINE,
        },
        "state": _state(pool, context),
        "state_password_env": None if own_state or not _password(pool, context) else PASSWORD_ENV,
        "events": {
            "enabled": events.enabled,
            "port": events.port,
            "replay_port": events.replay_port,
            "media": {name: percent / 100 for name, percent in events.media.items()},
        },
        "metrics_path": spec.engine.metrics_path,
        "policy": picker.policy,
        "hotspot_guard": picker.hotspot_guard,
        "shadow": list(picker.shadow),
        **({"workers": picker.workers} if picker.workers > 1 else {}),  # an older image knows no such field
        **({"capture": capture.configuration(picker.capture)} if picker.capture else {}),
        "explain_headers": picker.explain_headers,
        "listen": {"ext_proc": EXT_PROC_PORT, "health": HEALTH_PORT, "admin": ADMIN_PORT}
        | ({"tls": {"mode": "self-signed"}} if speaks_tls(pool, context) else {}),
        "limits": {
            # with a KV connector, fields of a request that was not read would reach engines that obey them
            "max_body_bytes": picker.max_read_bytes if has_kv_connector(pool) else picker.max_body_bytes,
            "max_read_bytes": picker.max_read_bytes,
            "drain_s": float(max(1, picker.drain_timeout_seconds)),
        },
        "log_level": picker.log_level.value.lower(),
        "log_format": "json",
    }


def _token_options(pool: Pool) -> TokenOptions:
    args = given_arguments(pool)
    match pool.spec.engine.type:
        case EngineType.VLLM:
            model = artifact(pool.spec.model.uri or "", "model").source
            return of_vllm(args, model, lambda path: _template_at(pool, path))
        case EngineType.SGLANG:
            return of_sglang(args)
        case EngineType.SIMULATED:
            return TokenOptions({}, ())


def _template_at(pool: Pool, path: str) -> str | None:
    """The engine's file, where the pickers have the same volume."""
    uri, model = pool.spec.model.uri, artifact(pool.spec.model.uri or "", "model")
    tokenizer = _tokenizer(pool)
    if tokenizer is None or tokenizer.mount is None or model.mount is None or tokenizer.volume is None:
        return None
    same = artifact(uri or "", "tokenizer").volume == tokenizer.volume
    below = f"{model.mount['mountPath']}/"
    return f"{tokenizer.mount['mountPath']}/{path.removeprefix(below)}" if same and path.startswith(below) else None


def _state(pool: Pool, context: Context) -> str:
    url = context.state_url(pool)
    if url is None:
        return "memory"
    return user_url(url, pool) if user_password(pool, context) else url


def _deployment(pool: Pool, context: Context, config: str, stamp: str) -> Manifest:
    picker = pool.spec.routing.picker
    base = {
        "metadata": {
            "labels": {
                "app.kubernetes.io/name": "multipick",
                "app.kubernetes.io/component": PICKER,
                **selector(pool, PICKER),
            },
            "annotations": {"multipick.dev/secrets": stamp},  # changed ones roll the pickers
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
        "revisionHistoryLimit": 0,  # an older one's configuration is gone
        "progressDeadlineSeconds": ROLLOUT_S,
        "template": template,
    }
    return manifest(pool, "apps/v1", "Deployment", picker_name(pool), PICKER, spec=spec)


def _pod(pool: Pool, context: Context, config: str) -> Manifest:
    picker = pool.spec.routing.picker
    tokenizer = _tokenizer(pool)
    container = {
        "name": PICKER,
        "image": picker.image or context.defaults.picker_image,
        "imagePullPolicy": picker.image_pull_policy and picker.image_pull_policy.value,
        "command": ["multipick", "epp"],
        "args": ["--config", f"{CONFIG_FOLDER}/epp.yaml"],
        "env": _password(pool, context) + _seed(pool, context),
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
            "terminationGracePeriodSeconds": max(grace_seconds(pool), picker.drain_timeout_seconds) + 15,
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
        {
            "name": "grpc-ext-proc",
            "port": EXT_PROC_PORT,
            "targetPort": "grpc-ext-proc",
            "protocol": "TCP",
            "appProtocol": "http2" if speaks_tls(pool, context) else "kubernetes.io/h2c",  # the second is plaintext
        },
        {"name": "grpc-health", "port": HEALTH_PORT, "targetPort": "grpc-health", "protocol": "TCP"},
        {"name": "admin", "port": ADMIN_PORT, "targetPort": "admin", "protocol": "TCP"},
    ]
    spec = {"selector": selector(pool, PICKER), "ports": ports}
    return [
        manifest(pool, "v1", "Service", picker_name(pool), PICKER, spec=spec),
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


def _password(pool: Pool, context: Context) -> list[Manifest]:
    if index := pool.spec.index:
        return [_from_secret(PASSWORD_ENV, ref.name, ref.key)] if (ref := index.password_secret_ref) else []
    own = context.defaults.state_url and context.defaults.state_password
    return [_from_secret(PASSWORD_ENV, picker_name(pool), "password")] if own else []


def _seed(pool: Pool, context: Context) -> list[Manifest]:
    own = not pool.spec.index and context.defaults.state_password
    return [_from_secret(SEED_ENV, picker_name(pool), "seed")] if own else []


def _tokenizer(pool: Pool) -> Artifact | None:
    """Where it lies on a volume or in the image; None: the engines are asked."""
    uri = pool.spec.model.tokenizer_uri
    if uri is None and (pool.spec.model.uri or "").startswith(("pvc://", "oci://")):
        uri = pool.spec.model.uri
    return artifact(uri, "tokenizer") if uri else None


def _from_secret(variable: str, name: str, key: str) -> Manifest:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def _probe(service: str) -> Manifest:
    return {"grpc": {"port": HEALTH_PORT, "service": service}, "timeoutSeconds": 2}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _stamp(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
