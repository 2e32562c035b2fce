"""`multipick sim serve`: one simulated vLLM pod."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import uvloop
import zmq

from multipick_sim.assets import MODEL_DIR
from multipick_sim.engine.presets import DEFAULT_PRESET, PRESETS
from multipick_sim.engine.values import MAX_BLOCKS, Limits
from multipick_sim.flags import above_zero, seconds, whole
from multipick_sim.pod.server import serve
from multipick_sim.pod.settings import EventFormat, Settings

PORT = whole(0, 65_535)
MOST = 2**31
RUNTIME_LORAS = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"  # vLLM has no flag for it


def command(argv: Sequence[str]) -> int:
    """`multipick sim …`: the exit status is 0 after a drain, 1 where the pod can't start, 2 for a bad command line."""
    arguments = _parser().parse_args(argv)
    try:
        settings = _settings(arguments)
        uvloop.run(serve(settings))
    except (OSError, ValueError, zmq.ZMQError) as error:
        print(f"multipick sim serve: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="multipick sim", description="Model servers without a GPU.")
    pod = parser.add_subparsers(dest="what", required=True).add_parser(
        "serve",
        help="a simulated vLLM pod",
        description="Serve vLLM's HTTP API, metrics and KV events at the pace of a modelled GPU. Answers are "
        "pseudo-words that depend on the prompt alone; with max_tokens they have exactly that many tokens.",
    )
    add = pod.add_argument
    add("--preset", choices=sorted(PRESETS), default=DEFAULT_PRESET, help="GPU and model (default %(default)s)")
    add("--speed", type=above_zero, default=1.0, metavar="X", help="engine seconds a second (default 1)")
    add("--num-gpu-blocks", type=whole(2, MAX_BLOCKS), metavar="N", help="KV-cache blocks, with the null block")
    add("--block-size", type=whole(1, MOST), default=16, metavar="N", help="tokens a block (default %(default)s)")
    add("--max-num-seqs", type=whole(1, MOST), metavar="N", help="requests that run at once")
    add("--max-num-batched-tokens", type=whole(1, MOST), metavar="N", help="token budget of a step")
    add("--max-model-len", type=whole(2, MOST), metavar="N", help="tokens of prompt and answer")
    add("--served-model-name", nargs="+", default=["sim"], metavar="NAME", help="default: sim")
    add("--lora", nargs="+", default=[], metavar="NAME", help="adapters that are loaded")
    add("--host", default="127.0.0.1", help="default %(default)s")
    add("--port", type=PORT, default=8000, help="0: any free one (default %(default)s)")
    add("--events-port", type=PORT, metavar="PORT", help="publish KV events there; 0: any free one")
    add("--replay-port", type=PORT, metavar="PORT", help="replay KV events there; 0: any free one")
    add("--event-topic", default="", metavar="TEXT", help="topic of the KV events (default: empty)")
    add(
        "--event-format",
        type=EventFormat,
        choices=list(EventFormat),
        default=EventFormat.MAP,
        help="encoding of vLLM 0.24 and later (map, the default) or before (array)",
    )
    add("--tokenizer", type=Path, default=MODEL_DIR, metavar="DIR", help="a model folder (default: a small one)")
    add("--stream-interval", type=whole(1, MOST), default=1, metavar="N", help="tokens a chunk, after the first")
    add("--seed", type=whole(0, MOST), default=0, metavar="N", help="of the answers (default 0)")
    add("--shutdown-timeout", type=seconds, default=0.0, metavar="S", help="for requests in flight at SIGTERM")
    add("--data-parallel-size", type=whole(1, MOST), default=1, metavar="N", help="engines behind this port")
    add("--data-parallel-rank", type=whole(0, MOST), default=0, metavar="N", help="rank of the first of them")
    add(
        "--enable-prefix-caching",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="cache prompts, and tell of them in KV events (default: yes)",
    )
    add(
        "--enable-prompt-tokens-details",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="tell cached tokens in usage (default: yes)",
    )
    add("--dev", action="store_true", help="serve vLLM's dev-mode endpoints, and the true cache at /sim/cache")
    return parser


def _settings(arguments: argparse.Namespace) -> Settings:
    """Raises ValueError for settings that don't go together."""
    if arguments.replay_port is not None and arguments.events_port is None:
        raise ValueError("--replay-port needs --events-port")
    preset = PRESETS[arguments.preset]
    return Settings(
        limits=_limits(preset.limits(arguments.block_size), arguments),
        costs=preset.costs(),
        models=arguments.served_model_name,
        loras=arguments.lora,
        runtime_loras=os.environ.get(RUNTIME_LORAS, "").lower() in ("1", "true"),
        host=arguments.host,
        port=arguments.port,
        events_port=arguments.events_port,
        replay_port=arguments.replay_port,
        topic=arguments.event_topic,
        event_format=arguments.event_format,
        tokenizer=arguments.tokenizer,
        speed=arguments.speed,
        stream_interval=arguments.stream_interval,
        seed=arguments.seed,
        shutdown_timeout_s=arguments.shutdown_timeout,
        first_rank=arguments.data_parallel_rank,
        ranks=arguments.data_parallel_size,
        prompt_tokens_details=arguments.enable_prompt_tokens_details,
        dev=arguments.dev,
    )


def _limits(preset: Limits, arguments: argparse.Namespace) -> Limits:
    """The preset's limits with what the command line says; what it doesn't say is fitted to what it does."""
    blocks = arguments.num_gpu_blocks or preset.num_gpu_blocks
    seqs = arguments.max_num_seqs or preset.max_num_seqs
    budget = arguments.max_num_batched_tokens or max(seqs, preset.max_num_batched_tokens)
    return replace(
        preset,
        num_gpu_blocks=blocks,
        max_num_seqs=arguments.max_num_seqs or min(seqs, budget),
        max_num_batched_tokens=budget,
        max_model_len=arguments.max_model_len or min(preset.max_model_len, (blocks - 1) * preset.block_size),
        enable_prefix_caching=arguments.enable_prefix_caching,
    )
