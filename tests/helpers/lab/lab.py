"""One fault after the other on one pool: from healthy to healthy, and what was seen on the way."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import aiohttp
from multipick_sim.assets import MODEL_DIR
from multipick_sim.local.bootstrap import Style
from multipick_sim.local.processes import held_port
from stacks.process import Pod
from stacks.stack import POOL, Plan, Stack, running_stack
from stacks.truth import MODEL

from lab.blame import Ailing, blamed, drawn_share
from lab.report import Probes, Row, reasons
from lab.traffic import Sent, Traffic

PODS: Final = 8
PICKERS: Final = 3
FAIR_SHARE: Final = 1 / PODS
POD: Final = ("--speed", 20, "--num-gpu-blocks", 2500, "--max-model-len", 4096, "--stream-interval", 8)
SAVES: Final = {"save": "3600 1", "enable-protected-configs": "yes"}  # so that a disk can be full
BEFORE_S: Final = 2.0  # of traffic, before anything breaks
AFTER_S: Final = 2.0  # of traffic, once all holds again
RECOVERY_S: Final = 30.0
FAULT_S: Final = 60.0  # few faults take longer
MOMENT_S: Final = 0.6  # a scrape, and events on their way
SURE: Final = 3  # probes in a row that were answered, and decided as exact


@dataclass(slots=True)
class Trial:
    """One fault while it lasts: the body of `Lab.fault` says through it what it broke."""

    stack: Stack
    traffic: Traffic
    ailing: Ailing = field(default_factory=Ailing)
    swallowed: int = 0  # requests that the sick pod says it treated badly
    wrong: list[str] = field(default_factory=list)  # found by the body itself

    async def lasts(self, seconds: float) -> None:
        """Traffic goes on so long."""
        await asyncio.sleep(seconds)

    def breaks(self, pod: Pod | None = None, *, answers: bool = False, through_picker: bool = False) -> None:
        """From now on what is lost may be the pod's, or the picker's."""
        sick = None if pod is None else pod.endpoint
        self.ailing = Ailing(sick, answers, through_picker, asyncio.get_running_loop().time())

    async def sick(self, pod: Pod, **sickness: object) -> None:
        """The pod is sick so; without any, well."""
        if not sickness:
            told = await self.stack.get(f"http://{pod.endpoint}/sim/sick")
            self.swallowed = told["drawn"]
        async with self.stack.admin.post(f"http://{pod.endpoint}/sim/sick", json=sickness) as response:
            assert response.status == 200, await response.text()

    def expect(self, holds: object, what: str) -> None:
        """Something that this fault alone asks for."""
        if not holds:
            self.wrong.append(what)


class Lab:
    """A pool of one style; anew after a fault that it did not recover from."""

    def __init__(
        self,
        style: Style,
        folder: Path,
        rows: list[Row],
        pods: int = PODS,
        flags: Sequence[object] = POD,
        recovers_in_s: float = RECOVERY_S,
    ) -> None:
        """`flags`: of each of the `pods`. A pool that needs longer than `recovers_in_s` has not recovered."""
        self.style = style
        self._pods = pods
        self._flags = flags
        self._recovers_in_s = recovers_in_s
        self.tokenizer = folder / "tokenizer"
        self._folder = folder
        self._rows = rows
        self._running: AsyncExitStack | None = None
        self._stack: Stack | None = None
        self._started = 0

    async def close(self) -> None:
        self._stack = None
        if running := self._running:
            self._running = None
            await running.aclose()

    async def stack(self) -> Stack:
        """The pool, whose pickers all know every pod."""
        return self._stack or await self._start()

    @asynccontextmanager
    async def fault(self, name: str, within_s: float = FAULT_S) -> AsyncIterator[Trial]:
        """Break something in the body, and mend it again at its end. Asserts all that must hold, then and meanwhile."""
        stack = await self.stack()
        traffic = Traffic(stack.http, len(self._rows))
        trial = Trial(stack, traffic)
        loop = asyncio.get_running_loop()
        recovered_s: float | None = None
        traffic.start()
        try:
            await asyncio.sleep(BEFORE_S)
            try:
                async with asyncio.timeout(within_s):
                    yield trial
            except TimeoutError:
                trial.wrong.append(f"not mended within {within_s:g} s")
            except (AssertionError, RuntimeError, OSError, aiohttp.ClientError) as error:
                trial.wrong.append(f"not mended: {error!r}"[:600])
            mended_s = loop.time()
            trial.ailing = replace(trial.ailing, until_s=mended_s)
            await traffic.calm()
            if missing := await _healthy(stack, traffic, mended_s, self._recovers_in_s):
                trial.wrong.append(f"not recovered in {self._recovers_in_s:g} s: {missing}"[:600])
            else:
                recovered_s = loop.time() - mended_s
                traffic.start()
                await asyncio.sleep(AFTER_S)
                await traffic.calm()
                if missing := await _healthy(stack, traffic, loop.time(), self._recovers_in_s):
                    trial.wrong.append(f"fell ill again: {missing}"[:600])
        finally:
            await traffic.stop()
        row = self._row(name, trial, recovered_s)
        self._rows.append(row)
        if not row.good:
            await self.close()
        assert row.good, "\n".join(row.wrong)

    def _row(self, name: str, trial: Trial, recovered_s: float | None) -> Row:
        sent, ailing, wrong = trial.traffic.sent, trial.ailing, trial.wrong
        losses = blamed(sent, ailing, trial.swallowed)
        if losses.ours:
            wrong.append(f"{len(losses.ours)} lost by us: {reasons(losses)}")
        probes = Probes.of(sent)
        if probes.wrong:
            wrong.append(f"{probes.wrong} exact ones predicted wrong: {_predictions(sent, ailing.until_s)}")
        drawn = None if ailing.pod is None else drawn_share(sent, ailing, trial.swallowed)
        if drawn is not None and drawn > FAIR_SHARE:
            wrong.append(f"the sick pod drew {drawn:.0%}, its fair share is {FAIR_SHARE:.1%}")
        left = sum(each.outcome == "left" for each in sent)
        lost = (len(losses.ours), len(losses.pods), len(losses.pickers))
        return Row(name, self.style, len(sent), left, *lost, probes, drawn, recovered_s, wrong)

    async def _start(self) -> Stack:
        folder = self._folder / str(self._started)
        folder.mkdir()
        self._started += 1
        shutil.rmtree(self.tokenizer, ignore_errors=True)
        shutil.copytree(MODEL_DIR, self.tokenizer)
        self._running = running = AsyncExitStack()
        each: list[Sequence[object]] = []
        for _ in range(self._pods):
            ports: list[object] = []
            for flag in ("--port", "--events-port", "--replay-port"):  # the same ones when it is started again
                port, keeper = held_port()
                running.callback(keeper.close)
                ports += [flag, port]
            each.append(ports)
        pool = {"name": POOL, "models": [MODEL], "tokenizer": str(self.tokenizer)}
        config = {"pool": pool, "destinations": 3, "limits": {"decision_s": 1.0}}
        plan = Plan(self.style, self._pods, PICKERS, self._flags, each, config, SAVES, retries=2)
        self._stack = stack = await running.enter_async_context(running_stack(folder, plan))
        await stack.known()
        return stack


async def _healthy(stack: Stack, traffic: Traffic, since_s: float, within_s: float) -> str | None:
    """Wait for all that must hold while nothing but probes is asked. None, or what still doesn't after `within_s`."""
    loop = asyncio.get_running_loop()
    while True:
        async with traffic.between_probes:
            missing = await _missing(stack) or _doubt([e for e in traffic.sent if e.probe and e.sent_s >= since_s])
        if missing is None or loop.time() > since_s + within_s:
            return missing
        await asyncio.sleep(0.1)


def _doubt(probes: Sequence[Sent]) -> str | None:
    """Why the last probes show no healthy pool; None where they do."""
    if len(probes) < SURE:
        return f"only {len(probes)} probes"
    bad = [each for each in probes[-SURE:] if each.outcome != "whole" or each.mode != "exact"]
    return f"a probe: {bad[-1].outcome} {bad[-1].mode} {bad[-1].why}" if bad else None


async def _missing(stack: Stack) -> str | None:
    """What does not hold in a pool without requests; cheap questions first."""
    try:
        for picker in stack.pickers:
            status = await stack.get(f"{picker.url}/status")
            told = {each: status[each] for each in ("state", "ingest", "pods", "mismatches") if status[each]}
            if told:
                return f"{picker.log.stem} says {told}"
        for question in (stack.unknown, stack.loaded, stack.differing):
            if (found := await _still(question)) is not None:
                return f"{question.__name__}: {found}"
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return repr(error)
    return None


async def _still(question: Callable[[], Awaitable[object]]) -> object:
    """What `question` finds also after the moment that events and scrapes need."""
    deadline_s = asyncio.get_running_loop().time() + MOMENT_S
    while (found := await question()) is not None and asyncio.get_running_loop().time() < deadline_s:
        await asyncio.sleep(0.05)
    return found


def _predictions(sent: Sequence[Sent], mended_s: float) -> str:
    """The first of them, with their time since the fault's end."""
    wrong = [each for each in sent if each.probe and each.mode == "exact" and each.outcome == "whole"]
    return "; ".join(
        f"{each.predicted} where {each.cached} were cached on {each.endpoint}, at {each.sent_s - mended_s:+.1f} s"
        for each in [each for each in wrong if each.predicted != each.cached][:3]
    )
