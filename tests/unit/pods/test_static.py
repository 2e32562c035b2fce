import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from multipick_epp.config import Config, ConfigError, Pool, StaticEndpoint
from multipick_epp.pods import static
from multipick_epp.pods.registry import Registry
from multipick_epp.pods.static import StaticPods


def config(**fields: object) -> Config:
    return Config(pool=Pool(name="p"), **fields)  # type: ignore[arg-type]


async def test_configured_endpoints_fill_the_registry() -> None:
    registry = Registry()
    await StaticPods(config(endpoints=(StaticEndpoint("10.0.0.1:8000"),)), registry).follow()
    assert registry.all() == ("10.0.0.1:8000",)


def test_an_address_without_a_port_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="pod-1"):
        static.pods_of((StaticEndpoint("pod-1"),))


def test_an_endpoint_that_is_there_twice_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"10\.0\.0\.1:8000.*twice"):
        static.pods_of((StaticEndpoint("10.0.0.1:8000", "tcp://10.0.0.1:5557"), StaticEndpoint("10.0.0.1:8000")))


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":8000",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:٣",
        "u@10.0.0.1:1",
        "a/b:1",
        "fd00::1:80",
        " a:1",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError):
        static.pods_of((StaticEndpoint(address),))


@pytest.mark.parametrize("address", ["10.0.0.1:8000", "[fd00::1]:8000", "pod-1.ns.svc:80", "localhost:65535"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    assert [pod.endpoint for pod in static.pods_of((StaticEndpoint(address),))] == [address]


@pytest.mark.parametrize(
    "content",
    [
        b"- address: [\n",
        b"\xff\xfe\x00",
        b"a: &a [1]\n",
        b"[" * 100_000,
        b"- address: 7\n",
        b"- {address: '10.0.0.1:1', port: 1}\n",
        b"- {address: '10.0.0.1:1', address: '10.0.0.2:1'}\n",
        b"# " + b"x" * static.MAX_FILE_BYTES,
        b"\x00",
    ],
)
async def test_a_file_that_can_not_be_read_keeps_nobody_from_the_fixed_endpoints(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path, registry = tmp_path / "endpoints.yaml", Registry()
    path.write_bytes(content)
    pods = StaticPods(config(endpoints=(StaticEndpoint("10.0.0.1:8000"),), endpoints_file=str(path)), registry)
    task = asyncio.create_task(pods.follow())
    await until(lambda: pods.outage is not None)
    assert registry.all() == ("10.0.0.1:8000",)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_changed_file_changes_the_pool_and_a_broken_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(static, "POLL_S", 0.005)
    path, registry = tmp_path / "endpoints.yaml", Registry()
    path.write_text("- address: 10.0.0.1:8000\n")
    pods = StaticPods(config(endpoints_file=str(path)), registry)
    task = asyncio.create_task(pods.follow())
    await until(lambda: registry.all() == ("10.0.0.1:8000",))
    path.write_text("- address: [\n")
    await until(lambda: "endpoints file not used" in caplog.text)
    assert registry.all() == ("10.0.0.1:8000",)
    path.write_text("- address: 10.0.0.1:8000\n- address: 10.0.0.2:8000\n")
    await until(lambda: registry.all() == ("10.0.0.1:8000", "10.0.0.2:8000"))
    path.unlink()
    await until(lambda: pods.outage is not None and "No such file" in pods.outage)
    path.mkdir()
    await until(lambda: pods.outage is not None and "Is a directory" in pods.outage)
    assert registry.all() == ("10.0.0.1:8000", "10.0.0.2:8000")
    path.rmdir()
    path.write_text("[]")
    await until(lambda: registry.all() == ())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_publisher_that_two_endpoints_have_is_refused(tmp_path: Path) -> None:
    first, second = (StaticEndpoint(f"10.0.0.1:800{number}", "tcp://10.0.0.1:5557") for number in (0, 1))
    with pytest.raises(ConfigError, match="5557"):
        static.pods_of((first, second))
    path, registry = tmp_path / "endpoints.yaml", Registry()
    path.write_text(f"- {{address: '{second.address}', events: '{second.events}'}}\n")
    pods = StaticPods(config(endpoints=(first,), endpoints_file=str(path)), registry)
    task = asyncio.create_task(pods.follow())
    await until(lambda: pods.outage is not None and "5557" in pods.outage)
    assert registry.all() == (first.address,)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)
