"""`multipick epp`: reads and checks the configuration, runs the picker until SIGTERM, and drains."""

import argparse
import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from multipick_epp import config as configuration
from multipick_epp.app import flags
from multipick_epp.app.app import App
from multipick_epp.app.certificates import certificate
from multipick_epp.app.front import Front
from multipick_epp.app.stores import server
from multipick_epp.config import Config, ConfigError
from multipick_epp.pods import static
from multipick_epp.policy.registry import policy
from multipick_epp.tasks.descriptors import allow_descriptors
from multipick_epp.telemetry import logs
from multipick_epp.tokens.families import tokenizer_file

log = logging.getLogger(__name__)


def command(argv: Sequence[str]) -> int:
    """`multipick epp --config FILE`, or the flags of another picker; 2 for what can't be used."""
    parser = argparse.ArgumentParser(
        prog="multipick epp",
        description="The endpoint picker that gateways call by ext_proc.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, help="YAML file; its fields are in docs/configuration.md")
    parser.add_argument("--check", action="store_true", help="only check what it is told")
    parser.add_argument(
        "--conformance", action="store_true", help="with the hooks of GIE's conformance suite; never in use"
    )
    flags.add_flags(parser)
    options, unknown = parser.parse_known_args(argv)
    try:
        flags.check_unknown(unknown)
        config = flags.with_flags(configuration.load(options.config) if options.config else None, options)
        check(config)
    except ConfigError as error:
        print(f"multipick epp: {error}", file=sys.stderr)
        return 2
    if options.check:
        print(f"{options.config or options.pool_name}: good")
        return 0
    logs.configure(config.log_level, config.log_format)
    allow_descriptors()  # for the connections that are let in, and two to each engine
    try:
        uvloop.run(run(config))
    except (ConfigError, OSError, RuntimeError, ValueError) as error:
        log.error("the picker can't start", extra={"why": str(error)})
        return 1
    return 0


def check(config: Config) -> None:
    """Raises ConfigError for what only shows when the parts look at it: names, addresses, secrets, files."""
    for field, name in (("policy", config.policy), *(("shadow", name) for name in config.shadow)):
        try:
            policy(name)
        except ValueError as error:
            raise ConfigError(f"{field}: {error}") from error
    try:
        logs.check(config.log_level, config.log_format)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    static.pods_of(config.endpoints)
    sources = (config.kubernetes, config.inference_pool, config.endpoints or config.endpoints_file)
    if sum(map(bool, sources)) > 1:
        raise ConfigError("kubernetes, inference_pool, endpoints: only one of them says where the endpoints are")
    configuration.secret(config.pool.secret_env)
    if server(config) is None and config.workers > 1:
        raise ConfigError("workers: more than one need a state that they share: state: redis://...")
    certificate(config.listen.tls)
    folder = config.pool.tokenizer
    if folder is not None and tokenizer_file(Path(folder), config.pool.tokenizer_mode) is None:
        raise ConfigError(f"pool.tokenizer: no tokenizer.json in {folder}, nor a tokenizer of Mistral's own")


async def run(config: Config) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then drain."""
    stop = asyncio.Event()
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under `nohup`
        numbers.append(signal.SIGHUP)  # who means it as "read your files again" restarts us, at no request's cost
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app: App | Front = App(config) if config.workers == 1 else Front(config)
    starting, stopping = asyncio.create_task(app.start()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            gc.freeze()  # modules and all else that stays: no collection need look through them while requests wait
            await stopping
            await app.drain()
    finally:
        await _cancelled(starting)
        await app.close()


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Cancel what may still run, and wait for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
