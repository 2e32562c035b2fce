"""One policy's run: a fresh stack, the plan sent through it, the figures."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from multipick_sim.demo.display import Display, Pod
from multipick_sim.demo.options import Options
from multipick_sim.demo.report import Outcome
from multipick_sim.demo.stack import stack
from multipick_sim.demo.told import told_by
from multipick_sim.traffic.causes import agreement
from multipick_sim.traffic.client import Target, drive
from multipick_sim.traffic.measures import measure
from multipick_sim.traffic.plan import Session, request_count
from multipick_sim.traffic.records import Record

LOOK_S = 0.5  # between two looks at the pods


async def run(policy: str, sessions: Sequence[Session], options: Options, folder: Path, shown: Display) -> Outcome:
    """Send all requests under one policy, caches empty at the start; logs go to `folder`.

    Raises StackError where a process can't be started, or ends too early.
    """
    records: list[Record] = []

    def ended(record: Record) -> None:
        records.append(record)
        shown.ended(record)

    async with stack(policy, options, folder, shown) as started:
        shown.begin(policy, request_count(sessions))
        target = Target(started.url, started.model, options.speed)
        await _first(drive(sessions, target, ended), _look(started.admin_url, shown), started.fail())
        told = await told_by(started.admin_url, options.shadow)
    figures, foreseen = measure(records, options.pods), agreement(records, options.speed)
    return Outcome(policy, figures, foreseen, told, options.speed, started.endpoints, records)


async def _look(admin_url: str, shown: Display) -> None:
    """Show the pods as the picker sees them, for ever."""
    decoder = msgspec.json.Decoder(list[Pod])
    async with aiohttp.ClientSession(admin_url) as http:
        while True:
            with suppress(aiohttp.ClientError):  # a picker that is gone is told of by `Stack.fail`
                async with http.get("/endpoints") as response:
                    shown.pods(decoder.decode(await response.read()))
            await asyncio.sleep(LOOK_S)


async def _first(*work: Coroutine[Any, Any, None]) -> None:
    """Run all together until one ends, then end the others; an error is that of the first to end."""
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
