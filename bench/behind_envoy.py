"""A pool behind Envoy for as long as a command runs: for load tools that people use, as they come.

    python bench/behind_envoy.py --pods 3 -- TOOL --url {url} --model {model} --tokenizer {tokenizer}

`{url}` is Envoy's, `{model}` what the pods serve, `{tokenizer}` its folder. Exits as the command does, or with 1 where
a request was refused by the picker, or left without a pick. docs/benchmarking.md has the commands.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import uvloop
from multipick_sim.assets import MODEL_DIR
from multipick_sim.demo.display import display
from multipick_sim.demo.options import parse
from multipick_sim.demo.stack import stack
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

COUNTED = ("multipick_decisions_total", "multipick_refusals_total", "multipick_ext_proc_undecided_total")


async def counted(admin_url: str) -> dict[str, float]:
    async with aiohttp.ClientSession() as session, session.get(f"{admin_url}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
    found = dict.fromkeys(COUNTED, 0.0)
    for sample in (sample for family in families for sample in family.samples):
        if sample.name in found:
            found[sample.name] += sample.value
    return found


async def run(pods: int, speed: float, command: Sequence[str]) -> int:
    options = parse(["--pods", str(pods), "--speed", str(speed)])
    with tempfile.TemporaryDirectory() as folder, display(Console(stderr=True)) as shown:
        async with stack("lmetric", options, Path(folder), shown) as running:
            values = {"{url}": running.url, "{model}": running.model, "{tokenizer}": str(MODEL_DIR)}
            said = [*command]
            for name, value in values.items():
                said = [word.replace(name, value) for word in said]
            status = await asyncio.to_thread(lambda: subprocess.run(said, check=False).returncode)
            found = await counted(running.admin_url)
    print(" ".join(f"{name.removeprefix('multipick_')}={value:g}" for name, value in found.items()))
    return status or int(sum(value for name, value in found.items() if name != COUNTED[0]) > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=3)
    parser.add_argument("--speed", type=float, default=4.0, help="engine seconds a second")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="behind --")
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("no command")
    return uvloop.run(run(options.pods, options.speed, command))


if __name__ == "__main__":
    sys.exit(main())
