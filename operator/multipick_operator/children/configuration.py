"""What the pickers are told: their configuration, and the secrets that it names."""

from typing import Any

from multipick_operator.api.engine import EngineType
from multipick_operator.api.pool import Pool
from multipick_operator.children import capture
from multipick_operator.children.artifacts import Artifact, artifact
from multipick_operator.children.commands import given_arguments, has_kv_connector
from multipick_operator.children.context import Context
from multipick_operator.children.names import ENGINE, Manifest, endpoint_labels, picker_name, without_nothing
from multipick_operator.children.store_user import user_password, user_url
from multipick_operator.children.tls import EXT_PROC_PORT, listen_tls
from multipick_operator.children.token_options import TokenOptions, of_sglang, of_vllm

HEALTH_PORT = 9003
ADMIN_PORT = 9090
PASSWORD_ENV = "MULTIPICK_STATE_PASSWORD"
SEED_ENV = "MULTIPICK_KEY_SEED"


def configuration(pool: Pool, context: Context) -> dict[str, Any]:
    """`epp.yaml`: fields as in `multipick_epp.config`."""
    spec, picker = pool.spec, pool.spec.routing.picker
    events = spec.engine.kv_events
    tokenizer = tokenizer_of(pool)
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
        "listen": {"ext_proc": EXT_PROC_PORT, "health": HEALTH_PORT, "admin": ADMIN_PORT} | listen_tls(pool, context),
        "limits": {
            # with a KV connector, fields of a request that was not read would reach engines that obey them
            "max_body_bytes": picker.max_read_bytes if has_kv_connector(pool) else picker.max_body_bytes,
            "max_read_bytes": picker.max_read_bytes,
            "drain_s": float(max(1, picker.drain_timeout_seconds)),
        },
        "log_level": picker.log_level.value.lower(),
        "log_format": "json",
    }


def tokenizer_of(pool: Pool) -> Artifact | None:
    """Where it lies on a volume or in the image; None: the engines are asked."""
    uri = pool.spec.model.tokenizer_uri
    if uri is None and (pool.spec.model.uri or "").startswith(("pvc://", "oci://")):
        uri = pool.spec.model.uri
    return artifact(uri, "tokenizer") if uri else None


def variables(pool: Pool, context: Context) -> list[Manifest]:
    """Secrets that the configuration names by the variables that hold them."""
    return _password(pool, context) + _seed(pool, context)


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
    tokenizer = tokenizer_of(pool)
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


def _password(pool: Pool, context: Context) -> list[Manifest]:
    if index := pool.spec.index:
        return [_from_secret(PASSWORD_ENV, ref.name, ref.key)] if (ref := index.password_secret_ref) else []
    own = context.defaults.state_url and context.defaults.state_password
    return [_from_secret(PASSWORD_ENV, picker_name(pool), "password")] if own else []


def _seed(pool: Pool, context: Context) -> list[Manifest]:
    own = not pool.spec.index and context.defaults.state_password
    return [_from_secret(SEED_ENV, picker_name(pool), "seed")] if own else []


def _from_secret(variable: str, name: str, key: str) -> Manifest:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
