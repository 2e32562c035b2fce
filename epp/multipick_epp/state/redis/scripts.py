"""The Lua scripts: each an atomic step. They lie beside this file; every key that one touches is declared."""

from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files

from multipick_epp.state.redis.connection import Argument, Connection


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and its name on the server."""

    text: str
    sha: str

    def command(self, keys: tuple[Argument, ...], *arguments: Argument) -> tuple[Argument, ...]:
        """The call, as `Connection.call` takes it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


_OF_THE_INDEX = frozenset(
    ("apply", "caches", "clear", "count", "drop", "keep", "lease", "look", "mode", "note", "replace", "take")
)


def load(name: str, *, when_full: bool = False, reads: bool = False) -> Script:
    """Read `lua/<name>.lua`, and what it shares with others.

    `when_full`: it runs also where the server is out of memory, for it needs next to none. `reads`: it changes nothing,
    and runs wherever one may read. Else the server refuses it as a whole, before it has written anything.
    """
    folder = files(__package__) / "lua"
    flags = " flags=allow-oom" if when_full else " flags=no-writes" if reads else ""
    parts = ("streams", "index" if name in _OF_THE_INDEX else "common", name)
    text = f"#!lua{flags}\n" + "".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


async def install(connection: Connection, *scripts: Script) -> None:
    """Make the server know the scripts."""
    for script in scripts:
        await connection.call("SCRIPT", "LOAD", script.text)
