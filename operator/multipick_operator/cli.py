"""`multipick operator`: the command line."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any
from uuid import uuid4

import msgspec
from msgspec import Meta

from multipick_operator import logs
from multipick_operator.api.engine import EngineType, PullPolicy
from multipick_operator.api.texts import IMAGE_WORDS, STORE_URL_WORDS, ImageName, StoreUrl
from multipick_operator.app import LeaseLostError, Operator, Settings
from multipick_operator.children.context import Defaults
from multipick_operator.cluster.login import LoginError, login
from multipick_operator.nested import read_any_depth

log = logging.getLogger(__name__)

STATE_PASSWORD_ENV = "MULTIPICK_STATE_PASSWORD"


def command(argv: Sequence[str]) -> int:
    """Run until SIGTERM; 2 without access to a cluster, 1 where another operator took the lease."""
    options = parser().parse_args(argv)
    logs.configure(options.log_level, options.log_format)
    read_any_depth()
    try:
        asyncio.run(_run(settings(options)))
    except LoginError as error:
        print(f"multipick operator: {error}", file=sys.stderr)
        return 2
    except LeaseLostError:
        log.error("the lease is lost: another operator acts now")
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="multipick operator", description="Keeps every InferencePool as its object says."
    )
    add = made.add_argument
    add("--namespaces", default="", metavar="A,B", help="watch only these (default: all)")
    add("--pool-selector", metavar="LABELS", help="act only on pools with these labels")
    image = _of(ImageName, IMAGE_WORDS)
    add("--picker-image", required=True, type=image, help="image of the endpoint pickers")
    add(
        "--picker-image-pull-policy",
        type=PullPolicy,
        choices=list(PullPolicy),
        help="when kubelets pull it, where a pool doesn't say (default: Kubernetes' own rule)",
    )
    add("--vllm-image", type=image, help="default image of engine VLLM")
    add("--sglang-image", type=image, help="default image of engine SGLang")
    add("--simulated-image", type=image, help="default image of engine Simulated (default: the picker's)")
    store = _of(StoreUrl, f"{STORE_URL_WORDS}; a password is in ${STATE_PASSWORD_ENV}")
    add("--state-url", type=store, help=f"Redis or Valkey of pools without one; password: ${STATE_PASSWORD_ENV}")
    add("--state-users", action="store_true", help="make a user there for each pool, limited to the pool's keys")
    add("--no-fixed-ids", action="store_true", help="leave the pickers' user ids to the platform (OpenShift)")
    add("--lease-namespace", default=os.environ.get("POD_NAMESPACE", "default"), help="where the lease lies")
    add("--lease-name", default="multipick-operator", help="operators that share it take turns (default %(default)s)")
    seconds = _of(Annotated[float, Meta(ge=1, le=86_400)], "seconds, from 1 to 86400")
    add(
        "--resync",
        type=seconds,
        default=120.0,
        metavar="SECONDS",
        help="look at every pool this often (default %(default)g)",
    )
    add("--host", default="0.0.0.0", help="address of /metrics and /healthz (default %(default)s)")
    add(
        "--port",
        type=_of(Annotated[int, Meta(ge=0, le=65_535)], "a port"),
        default=8080,
        help="their port (default %(default)s)",
    )
    add("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    add("--log-format", default="json", choices=("json", "text"))
    return made


def _of(form: Any, words: str) -> Callable[[str], Any]:
    """Reads an option's value of this form. What has another is not quoted: it may hold a password."""

    def read(text: str) -> Any:
        try:
            return msgspec.convert(text, form, strict=False)
        except msgspec.ValidationError:
            raise argparse.ArgumentTypeError(words) from None

    return read


def settings(options: argparse.Namespace) -> Settings:
    """The options, and the environment, as settings."""
    images = {
        EngineType.VLLM: options.vllm_image,
        EngineType.SGLANG: options.sglang_image,
        EngineType.SIMULATED: options.simulated_image or options.picker_image,
    }
    defaults = Defaults(
        picker_image=options.picker_image,
        picker_image_pull_policy=options.picker_image_pull_policy,
        engine_images={kind: image for kind, image in images.items() if image},
        state_url=options.state_url,
        state_password=os.environ.get(STATE_PASSWORD_ENV) or None,
        state_users=options.state_users,
        fixed_ids=not options.no_fixed_ids,
    )
    return Settings(
        defaults=defaults,
        lease_namespace=options.lease_namespace,
        lease_name=options.lease_name,
        identity=f"{os.environ.get('POD_NAME', 'local')}-{uuid4().hex[:8]}",
        namespaces=tuple(dict.fromkeys(name for one in options.namespaces.split(",") if (name := one.strip()))),
        pool_selector=options.pool_selector,
        resync_s=options.resync,
        host=options.host,
        port=options.port,
    )


async def _run(chosen: Settings) -> None:
    await login()  # who has no credentials at the start is told so; those that fail later are read again
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

    signals()
    try:
        await Operator(chosen, login, signals).run(stop)
    finally:  # all is done: what generators that kopf left open say as the loop closes them is no error of anybody
        loop.set_exception_handler(_left_open)


def _left_open(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.debug("left open at the end", extra={"what": context["message"], "why": repr(context.get("exception"))})
