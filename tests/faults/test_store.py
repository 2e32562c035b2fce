"""The store is killed, forgets, stands still, or is full."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from multipick_epp.state.redis.address import parse_url
from multipick_epp.state.redis.keys import keys_of
from multipick_epp.state.redis.server import open_connection
from stacks.stack import POOL

if TYPE_CHECKING:
    from lab.lab import Lab
    from multipick_sim.local.valkey import Valkey

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def told(store: "Valkey", *command: str) -> object:
    """What the server answers. Raises an error reply."""
    connection = await open_connection(parse_url(store.url), "", 5.0)
    try:
        return await connection.call(*command)
    finally:
        connection.close()


async def test_killed(lab: "Lab") -> None:
    async with lab.fault("Valkey killed") as trial:
        await trial.stack.store.kill()
        await trial.lasts(4)
        await trial.stack.store.start()


async def test_flushed(lab: "Lab") -> None:
    async with lab.fault("Valkey flushed") as trial:
        await told(trial.stack.store, "FLUSHALL")
        await trial.lasts(2)


async def test_paused(lab: "Lab") -> None:
    async with lab.fault("Valkey paused") as trial:
        trial.stack.store.pause()
        await trial.lasts(5)
        trial.stack.store.resume()


async def test_full(lab: "Lab") -> None:
    async with lab.fault("Valkey full") as trial:
        await told(trial.stack.store, "CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")
        await trial.lasts(5)
        await told(trial.stack.store, "CONFIG", "SET", "maxmemory", "0")


async def test_disk_full(lab: "Lab", tmp_path: Path) -> None:
    async with lab.fault("Valkey's disk full") as trial:
        store, disk = trial.stack.store, tmp_path / "disk"
        disk.mkdir()
        await told(store, "CONFIG", "SET", "dir", str(disk))
        disk.rmdir()
        await told(store, "BGSAVE")
        while b"rdb_last_bgsave_status:err" not in (await told(store, "INFO", "persistence")):  # type: ignore[operator]
            await asyncio.sleep(0.05)
        await trial.lasts(5)
        await told(store, "CONFIG", "SET", "dir", str(store.folder))
        await told(store, "BGSAVE")


async def test_load_deleted(lab: "Lab") -> None:
    async with lab.fault("loads deleted") as trial:
        for _ in range(3):
            await told(trial.stack.store, "DEL", keys_of(POOL).load)
            await trial.lasts(1)
