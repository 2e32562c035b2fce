"""What the user sees while it runs: a bar and a live table on a terminal, plain lines anywhere else."""

from collections.abc import Sequence
from typing import Protocol, Self

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.spinner import Spinner
from rich.table import Table

from multipick_sim.traffic.records import Record

REFRESHES_PER_S = 4
LINES_A_RUN = 10


class Pod(msgspec.Struct, frozen=True):
    """One row of the picker's `GET /endpoints`: what it knows of a pod."""

    endpoint: str
    ready: bool
    in_flight: int  # requests
    queued_tokens: int
    prompt_tokens_total: int  # of the requests sent there
    hit_tokens_total: int  # of these, resident by the index
    mode: str

    @property
    def hit_rate(self) -> float:
        """Of the prompt tokens sent there, the share that was predicted to be resident."""
        return self.hit_tokens_total / self.prompt_tokens_total if self.prompt_tokens_total else 0.0


class Display(Protocol):
    """Where the demo shows what it does; in each run `starting`, then `begin`, then `ended` and `pods` as they come."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def starting(self, policy: str, what: str) -> None:
        """The next part of a policy's stack is being started."""

    def begin(self, policy: str, requests: int) -> None:
        """A policy's traffic starts."""

    def ended(self, record: Record) -> None:
        """One request is over."""

    def pods(self, pods: Sequence[Pod]) -> None:
        """The pods as they are now."""


def display(console: Console) -> Display:
    """The display that fits the console."""
    return Screen(console) if console.is_terminal else Lines(console)


class Screen:
    """For a terminal: redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("[red]{task.fields[failed]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._live = Live(console=console, refresh_per_second=REFRESHES_PER_S)
        self._failed = 0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def starting(self, policy: str, what: str) -> None:
        """A moving sign below the bars of earlier runs, which stop."""
        for task in self._bar.tasks:
            self._bar.stop_task(task.id)
        self._live.update(Group(self._bar, Spinner("dots", f"{policy}: starting {what}")), refresh=True)

    def begin(self, policy: str, requests: int) -> None:
        """A new bar below those of earlier runs."""
        self._failed = 0
        self._bar.add_task(policy, total=requests, failed="")
        self._live.update(self._bar)

    def ended(self, record: Record) -> None:
        """The bar moves."""
        task = self._bar.tasks[-1]
        self._failed += not record.ok
        self._bar.update(task.id, advance=1, failed=f"{self._failed} failed" if self._failed else "")

    def pods(self, pods: Sequence[Pod]) -> None:
        """The table is redrawn."""
        table = Table("pod", box=None, pad_edge=False)
        for column in ("in flight", "queued tokens", "hit rate", "cache known"):
            table.add_column(column, justify="right")
        for pod in pods:
            mode = pod.mode if pod.ready else "not ready"
            table.add_row(pod.endpoint, str(pod.in_flight), f"{pod.queued_tokens:,}", f"{pod.hit_rate:.1%}", mode)
        self._live.update(Group(self._bar, table))


class Lines:
    """For a file or a pipe: one line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._policy = ""
        self._requests = self._done = self._failed = 0
        self._pods: Sequence[Pod] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def starting(self, policy: str, what: str) -> None:
        """A line each."""
        self._print(f"{policy}: starting {what}")

    def begin(self, policy: str, requests: int) -> None:
        """Counts start at 0."""
        self._policy, self._requests, self._done, self._failed, self._pods = policy, requests, 0, 0, ()
        self._print(f"{policy}: {requests} requests")

    def ended(self, record: Record) -> None:
        """A line whenever another tenth is done."""
        before = self._done * LINES_A_RUN // self._requests
        self._done += 1
        self._failed += not record.ok
        if self._done * LINES_A_RUN // self._requests > before:
            in_flight = sum(pod.in_flight for pod in self._pods)
            queued = sum(pod.queued_tokens for pod in self._pods)
            self._print(
                f"{self._policy}: {self._done}/{self._requests} done, {self._failed} failed,"
                f" {in_flight} in flight, {queued:,} tokens queued"
            )

    def pods(self, pods: Sequence[Pod]) -> None:
        """Kept for the next line."""
        self._pods = pods

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
