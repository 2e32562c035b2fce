"""Why the store does not do what it is asked, in one word: for metrics, `degraded` and the ladder in docs/state.md."""

from typing import Final

AWAY: Final = "away"
SLOW: Final = "slow"
FLUSHED: Final = "flushed"
DENIED: Final = "denied"
PROTOCOL: Final = "protocol"
UNFIT: Final = "unfit"
ERROR: Final = "error"

FULL: Final = "full"
DISK: Final = "disk"
REPLICAS: Final = "replicas"
MOVED: Final = "moved"

REFUSES_WRITES: Final = frozenset({FULL, DISK, REPLICAS, MOVED, DENIED})
"""By these it may go on answering reads, of what nobody keeps true any more."""

_BY_CODE: Final = {
    "OOM": FULL,
    "MISCONF": DISK,  # it can't save to its disk, and is told to take no writes then
    "NOREPLICAS": REPLICAS,  # fewer standbys than `min-replicas-to-write`
    "NOAUTH": DENIED,
    "WRONGPASS": DENIED,
    "NOPERM": DENIED,
    "DENIED": DENIED,  # protected mode
    "LOADING": "loading",
    "BUSY": SLOW,  # somebody's script has run for too long
    "UNKILLABLE": SLOW,
    "READONLY": MOVED,
    "MOVED": MOVED,
    "ASK": MOVED,
    "TRYAGAIN": MOVED,
    "CLUSTERDOWN": MOVED,
    "MASTERDOWN": MOVED,
    "REDIRECT": MOVED,  # Valkey 8, of a standby
    "UNBLOCKED": MOVED,  # a read was given up since the server became a standby
    "INPROG": MOVED,
    "IDONTKNOW": MOVED,  # Sentinel
    "NOGOODSLAVE": MOVED,
    "NOSCRIPT": FLUSHED,
    "NOPROTO": UNFIT,
    "CROSSSLOT": UNFIT,
}
_BY_TEXT: Final = (  # of errors whose code is just ERR
    ("max number of clients", "clients"),
    ("AUTH", DENIED),
    ("invalid password", DENIED),
    ("unknown command", UNFIT),
    ("unknown subcommand", UNFIT),
    ("DB index", UNFIT),
    ("SELECT is not allowed", UNFIT),
    ("cluster support disabled", UNFIT),
    ("Unexpected flag", UNFIT),  # a server too old for our scripts' first line
)


def reason_of(error: str) -> str:
    """The reason of an error reply; `ERROR` where it is none that we know."""
    code = error.split(" ", 1)[0]
    if code in _BY_CODE:
        return _BY_CODE[code]
    return next((reason for words, reason in _BY_TEXT if words in error), ERROR)
