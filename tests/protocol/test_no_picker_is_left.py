"""No picker answers, and the filter may fail open (`failureMode: FailOpen`): what Envoy then does with a request.

It sends on what it still has. In full duplex it keeps no copy of what it gives to a picker: so a body is lost where one
is tried in vain, and goes on where Envoy knows of none that it could try.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import aiohttp
import pytest
from multipick_sim.local.bootstrap import Bootstrap, Style, render
from multipick_sim.local.envoy import Envoy, envoy

if TYPE_CHECKING:
    from tests.protocol.conftest import Listening, Upstream

How = Literal["refuse", "hang", "are left out", "are not listed"]
"""Pickers refuse connections, take them and say nothing, were seen to fail, or Envoy was told of none."""

BODY: Final = b"x" * 200_000
OK: Final = (200, '{"ok":true}')
FAILED: Final = (500, "")


@dataclass(frozen=True, slots=True)
class Front:
    """An Envoy whose pickers are dead, and the two endpoints behind it."""

    envoy: Envoy
    http: aiohttp.ClientSession
    upstreams: "list[Upstream]"

    async def ask(self, method: str, body: bytes | None = None) -> tuple[int, str]:
        async with self.http.request(method, "/v1/completions", data=body) as response:
            return response.status, await response.text()

    async def ejects(self) -> None:
        """Until it leaves out the picker."""
        url = f"{self.envoy.admin_url}/stats?filter=cluster.pickers.outlier_detection.ejections_active&format=json"
        async with asyncio.timeout(60):
            while True:
                async with self.http.get(url) as stats:
                    if any(one["value"] for one in (await stats.json())["stats"]):
                        return

    @property
    def bodies(self) -> list[list[bytes]]:
        """What came to each endpoint."""
        return [[request.body for request in upstream.received] for upstream in self.upstreams]


@asynccontextmanager
async def front(style: Style, how: How, listening: "Listening", folder: Path, **changes: Any) -> AsyncIterator[Front]:
    """`changes` are what the filter is told else."""
    upstreams = [await listening() for _ in range(2)]
    async with AsyncExitStack() as stack:
        taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # by the kernel: nobody accepts
        port = taken.getsockname()[1] if how == "hang" else 1  # where nobody listens
        config = render(Bootstrap([upstream.endpoint for upstream in upstreams], [port], style))
        pickers = pickers_of(config)
        if how == "are not listed":
            pickers["load_assignment"]["endpoints"] = []
        if how == "are left out":  # by outlier detection alone, as a DestinationRule of Istio's has it
            del pickers["health_checks"]
            pickers["outlier_detection"]["base_ejection_time"] = "30s"
            pickers["common_lb_config"]["healthy_panic_threshold"] = {"value": 0}
        filter_of(config).update({"failure_mode_allow": True} | changes)
        running = await stack.enter_async_context(envoy(config, log=folder / "envoy.log"))
        found = Front(running, await stack.enter_async_context(aiohttp.ClientSession(running.url)), upstreams)
        if how == "are left out":
            assert await found.ask("POST", b"{}") == FAILED
            await found.ejects()
        yield found


def pickers_of(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in config["static_resources"]["clusters"] if one["name"] == "pickers")
    return found


def filter_of(config: dict[str, Any]) -> dict[str, Any]:
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    found: dict[str, Any] = next(
        one["typed_config"] for one in manager["http_filters"] if one["name"].endswith("ext_proc")
    )
    return found


@pytest.mark.requirement("ext_proc: In full duplex a dead picker costs a body, whatever the failure mode is.")
async def test_in_full_duplex_a_body_is_lost_with_a_picker_that_refuses(listening: "Listening", tmp_path: Path) -> None:
    async with front("gateway", "refuse", listening, tmp_path) as alone:
        assert [await alone.ask("POST", body) for body in (b"{}", BODY)] == [FAILED] * 2
        assert alone.bodies == [[], []]


@pytest.mark.parametrize("how", ["are left out", "are not listed"])
@pytest.mark.requirement("ext_proc: In full duplex a body fails open where no picker could be tried.")
async def test_in_full_duplex_bodies_go_in_turn_where_no_picker_could_be_tried(
    how: How, listening: "Listening", tmp_path: Path
) -> None:
    async with front("gateway", how, listening, tmp_path) as alone:
        assert [await alone.ask("POST", BODY) for _ in range(4)] == [OK] * 4
        assert alone.bodies == [[BODY, BODY]] * 2


@pytest.mark.parametrize("how", ["refuse", "are not listed"])
@pytest.mark.requirement("ext_proc: In full duplex a request without a body fails open.")
async def test_in_full_duplex_what_has_no_body_goes_in_turn(how: How, listening: "Listening", tmp_path: Path) -> None:
    async with front("gateway", how, listening, tmp_path) as alone:
        assert [await alone.ask(method) for method in ("GET", "POST", "GET", "POST")] == [OK] * 4
        assert alone.bodies == [[b"", b""]] * 2


@pytest.mark.parametrize("how", ["refuse", "hang", "are not listed"])
@pytest.mark.parametrize("mode", ["BUFFERED", "BUFFERED_PARTIAL", "STREAMED", "NONE"])
@pytest.mark.requirement("ext_proc: In every other mode requests fail open.")
async def test_in_every_other_mode_bodies_go_in_turn(
    mode: str, how: How, listening: "Listening", tmp_path: Path
) -> None:
    shown = filter_of(render(Bootstrap([], [1])))["processing_mode"] | {"request_body_mode": mode}
    async with front("standalone", how, listening, tmp_path, processing_mode=shown) as alone:
        assert [await alone.ask("POST", BODY) for _ in range(4)] == [OK] * 4
        assert alone.bodies == [[BODY, BODY]] * 2


@pytest.mark.parametrize("how", ["refuse", "are not listed"])
@pytest.mark.parametrize("style", ["standalone", "gateway"])
@pytest.mark.requirement("ext_proc: A filter that may not fail open lets nothing through without a picker.")
async def test_a_filter_that_may_not_fail_open_lets_nothing_through(
    style: Style, how: How, listening: "Listening", tmp_path: Path
) -> None:
    async with front(style, how, listening, tmp_path, failure_mode_allow=False) as alone:
        assert [await alone.ask("GET"), await alone.ask("POST", b"{}")] == [FAILED] * 2
        assert alone.bodies == [[], []]
