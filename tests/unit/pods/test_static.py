import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from multipick_epp.config import Config, ConfigError, Pool, StaticEndpoint
from multipick_epp.pods import static
from multipick_epp.pods.registry import Registry


def config(**fields: object) -> Config:
    return Config(pool=Pool(name="p"), **fields)  # type: ignore[arg-type]


async def test_configured_endpoints_fill_the_registry() -> None:
    registry = Registry()
    await static.follow(config(endpoints=(StaticEndpoint("10.0.0.1:8000"),)), registry)
    assert registry.all() == ("10.0.0.1:8000",)


def test_an_address_without_a_port_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="pod-1"):
        static.pods_of((StaticEndpoint("pod-1"),))


async def test_a_changed_file_changes_the_pool_and_a_broken_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(static, "POLL_S", 0.005)
    path, registry = tmp_path / "endpoints.yaml", Registry()
    path.write_text("- address: 10.0.0.1:8000\n")
    task = asyncio.create_task(static.follow(config(endpoints_file=str(path)), registry))
    await until(lambda: registry.all() == ("10.0.0.1:8000",))
    path.write_text("- address: [\n")
    await until(lambda: "endpoints file not used" in caplog.text)
    assert registry.all() == ("10.0.0.1:8000",)
    path.write_text("- address: 10.0.0.1:8000\n- address: 10.0.0.2:8000\n")
    await until(lambda: registry.all() == ("10.0.0.1:8000", "10.0.0.2:8000"))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
