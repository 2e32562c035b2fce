"""What the front and a worker tell each other: lines of JSON, each one of these."""

from collections.abc import Sequence

from msgspec import Struct

from multipick_epp.config import Config
from multipick_epp.events.child import Report
from multipick_epp.events.discover import FeedSpec


class Start(Struct, frozen=True):
    """What a worker is told first. Its `listen` is where its own pages are to be had."""

    config: Config


class Ingested(Struct, frozen=True, tag=True):
    """How the ingest does."""

    report: Report


class Shed(Struct, frozen=True, tag=True):
    """Ask the busiest peer to come again: another worker has room for it."""


Order = Ingested | Shed


class Up(Struct, frozen=True, tag=True):
    """The worker's pages are to be had."""

    admin: int  # port


class Load(Struct, frozen=True, tag=True):
    """How a worker does; told every second, and whenever that matters."""

    serving: bool = False
    taken: int = 0  # connections that it was given and has, since it began
    connections: int = 0
    busy: int = 0  # of these, the ones that requests come on


class Pool(Struct, frozen=True, tag=True):
    """The endpoints whose events are to be followed, as a worker knows them; told whenever they change."""

    feeds: Sequence[FeedSpec]


News = Up | Load | Pool
