"""The engine's command line and environment: what `spec.engine` means to vLLM, SGLang and the simulated pod.

Sources: vLLM `serve --help` 0.32 (events, `--shutdown-timeout` since 0.18, nnodes since 0.12), SGLang `launch_server`
0.5. The user's own arguments come last, since both engines let the last one win.
"""

import json
import re
from typing import Any

from multipick_operator.api.engine import EngineType
from multipick_operator.api.pool import Pool
from multipick_operator.children.artifacts import artifact, weights_folder
from multipick_operator.children.names import Manifest

SGLANG_PAGE = 64  # its default is 1 token a page, far too fine an event stream; 64 suits all its attention backends
MASTER_PORT = 20000
KV_CONNECTORS = ("--kv-transfer-config", "--disaggregation-mode")  # vLLM's flag, SGLang's


def command(pool: Pool, rank: int, worker: bool) -> list[str]:
    """Program and arguments of data-parallel `rank`; `worker`: of a node that is not its group's first."""
    make = {EngineType.VLLM: _vllm, EngineType.SGLANG: _sglang, EngineType.SIMULATED: _simulated}
    return [*make[pool.spec.engine.type](pool, rank, worker), *pool.spec.engine.args]


def has_kv_connector(pool: Pool) -> bool:
    """The user's arguments, or those of the pod template, let engines take KV blocks from elsewhere."""
    return any(flag in word for word in given_arguments(pool) for flag in KV_CONNECTORS)


def given_arguments(pool: Pool) -> list[str]:
    """The user's arguments, and behind them those of the pod template, which replace them."""
    spec = pool.spec.pod_template.get("spec")
    containers = spec.get("containers") if isinstance(spec, dict) else None
    words = list(pool.spec.engine.args)
    for one in containers if isinstance(containers, list) else []:
        if isinstance(one, dict):
            lists = (one[name] for name in ("command", "args") if isinstance(one.get(name), list))
            words += [str(word) for each in lists for word in each]
    return words


def environment(pool: Pool) -> list[Manifest]:
    """Environment variables, the user's last; one of the same name replaces ours."""
    spec = pool.spec
    own: dict[str, Manifest] = {
        "POD_NAME": _from_field("metadata.name"),
        "POD_IP": _from_field("status.podIP"),
    }
    if spec.engine.type is not EngineType.SIMULATED:
        own["HF_HUB_CACHE"] = {"value": spec.storage.cache.mount_path}
        if spec.engine.hash_seed:
            own["PYTHONHASHSEED"] = {"value": spec.engine.hash_seed}
    if token := spec.model.hf_token_secret_ref:
        own["HF_TOKEN"] = {"valueFrom": {"secretKeyRef": {"name": token.name, "key": token.key}}}
    if spec.lora and spec.lora.allow_runtime_updates and spec.engine.type is not EngineType.SGLANG:
        own["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = {"value": "1"}
    return [{"name": name, **value} for name, value in own.items()]


def _vllm(pool: Pool, rank: int, worker: bool) -> list[str]:
    spec = pool.spec
    model, engine, parallel = spec.model, spec.engine, spec.parallelism
    line = ["vllm", "serve", _model(pool)]
    line += ["--served-model-name", *_names(pool)]
    line += ["--port", str(engine.port + rank)]
    line += _revision(pool) + _option("--max-model-len", model.max_model_len)
    if _model(pool).startswith("s3://"):
        line += ["--load-format", "runai_streamer"]
    line += _above_one("--tensor-parallel-size", parallel.tensor)
    line += _above_one("--pipeline-parallel-size", parallel.pipeline)
    if parallel.expert_parallel:
        line += ["--enable-expert-parallel"]
    if parallel.data > 1:
        line += ["--data-parallel-size", str(parallel.data), "--data-parallel-rank", str(rank)]
        line += ["--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", str(MASTER_PORT)]
    if parallel.nodes > 1:
        line += ["--nnodes", str(parallel.nodes), "--node-rank", "$(LWS_WORKER_INDEX)"]
        line += ["--master-addr", "$(LWS_LEADER_ADDRESS)"]
        line += ["--headless"] if worker else []
    line += _option("--block-size", engine.block_size)
    line += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    if engine.kv_events.enabled:
        line += ["--kv-events-config", _events(pool, {"enable_kv_cache_events": True})]
    line += ["--shutdown-timeout", str(spec.drain.timeout_seconds)]
    if spec.lora:
        line += ["--enable-lora", "--max-loras", str(spec.lora.max_loras), "--max-lora-rank", str(spec.lora.max_rank)]
        line += ["--lora-modules", *_adapters(pool)] if spec.lora.adapters else []
    return line


def _sglang(pool: Pool, rank: int, worker: bool) -> list[str]:
    spec = pool.spec
    model, engine, parallel = spec.model, spec.engine, spec.parallelism
    line = ["python3", "-m", "sglang.launch_server", "--model-path", _model(pool)]
    line += ["--served-model-name", _literal(pool.model_name), "--host", "0.0.0.0", "--port", str(engine.port + rank)]
    line += _revision(pool) + _option("--context-length", model.max_model_len)
    line += _above_one("--tp-size", parallel.tensor) + _above_one("--pp-size", parallel.pipeline)
    if parallel.expert_parallel:
        line += ["--ep-size", str(parallel.tensor)]
    if parallel.nodes > 1:
        line += ["--nnodes", str(parallel.nodes), "--node-rank", "$(LWS_WORKER_INDEX)"]
        line += ["--dist-init-addr", f"$(LWS_LEADER_ADDRESS):{MASTER_PORT}"]
    line += ["--page-size", str(engine.block_size or SGLANG_PAGE), "--enable-metrics", "--enable-cache-report"]
    if engine.kv_events.enabled:
        line += ["--kv-events-config", _events(pool, {})]
    if spec.lora:
        line += ["--enable-lora", "--max-loras-per-batch", str(spec.lora.max_loras)]
        line += ["--max-lora-rank", str(spec.lora.max_rank)]
        # without any to start with it can't tell which modules they will change, and does not start
        line += ["--lora-paths", *_adapters(pool)] if spec.lora.adapters else ["--lora-target-modules", "all"]
    return line


def _simulated(pool: Pool, rank: int, worker: bool) -> list[str]:
    spec, engine, events = pool.spec, pool.spec.engine, pool.spec.engine.kv_events
    line = ["multipick", "sim", "serve", "--host", "0.0.0.0", "--port", str(engine.port + rank)]
    line += ["--served-model-name", *_names(pool)]
    line += _option("--block-size", engine.block_size) + _option("--max-model-len", spec.model.max_model_len)
    line += ["--data-parallel-rank", str(rank)] if rank else []
    if events.enabled:
        line += ["--events-port", str(events.port), "--replay-port", str(events.replay_port)]  # of rank 0, as vLLM's
        line += ["--event-topic", _literal(events.topic)] if events.topic else []
    if spec.lora and spec.lora.adapters:
        line += ["--lora", *(_literal(one.name) for one in spec.lora.adapters)]
    return [*line, "--shutdown-timeout", str(spec.drain.timeout_seconds)]


def _events(pool: Pool, more: dict[str, Any]) -> str:
    """Ports of rank 0: the engines add their rank. `*` makes them bind; a name would make them connect."""
    events = pool.spec.engine.kv_events
    config = more | {
        "publisher": "zmq",
        "endpoint": f"tcp://*:{events.port}",
        "replay_endpoint": f"tcp://*:{events.replay_port}",
        "topic": _literal(events.topic),
    }
    return json.dumps(config, separators=(",", ":"))


def _model(pool: Pool) -> str:
    """What the engine is told to load."""
    return weights_folder(pool) or artifact(pool.spec.model.uri or "", "model").source


def _revision(pool: Pool) -> list[str]:
    """Of a repository: a folder has one only."""
    return [] if pool.spec.storage.fetch else _option("--revision", pool.spec.model.revision)


def _adapters(pool: Pool) -> list[str]:
    adapters = pool.spec.lora.adapters if pool.spec.lora else ()
    return [
        f"{_literal(one.name)}={artifact(one.uri, f'adapter-{index}').source}" for index, one in enumerate(adapters)
    ]


def _names(pool: Pool) -> list[str]:
    """Of the model."""
    return [_literal(name) for name in (pool.model_name, *pool.spec.model.aliases)]


def _literal(text: str) -> str:
    """What the kubelet makes this very text of: in an argument it expands $(NAME), and makes $ of $$."""
    return re.sub(r"\$(?=[$(])", "$$", text)


def _option(flag: str, value: object) -> list[str]:
    return [] if value is None else [flag, str(value)]


def _above_one(flag: str, value: int) -> list[str]:
    return [flag, str(value)] if value > 1 else []


def _from_field(path: str) -> Manifest:
    return {"valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
