"""The engine's hashes -> our block keys, for the blocks of one engine and one block size.

An event names the block before its first by the engine's hash; everything else needed for our chain is in the event. So
a block gets its key when the key of its parent is known, and waits for it otherwise. Being named says nothing of being
resident: the name outlives the block, since offload tiers and sliding-window groups name a block by its hash alone.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice

from multipick_epp.blocks import child_key
from multipick_epp.events.decode import Stored
from multipick_epp.state.succession import Name, Names
from multipick_epp.types import BlockKey

MAX_WAITING_BLOCKS = 8192
MAX_WAITING_BYTES = 16 << 20
"""Of the tokens and extras that wait: 8,192 blocks of 64 tokens have 2 MiB."""
MAX_IDLE = 8192  # names of blocks that no cache holds


class KeyTable:
    """Invariants: a hash in `keys` is in `_idle` if no cache holds a copy of its block, in `_more` (with their number)
    if there are several, else there is one; `parents` has every key that is resident, a root being no key; `_waiting`
    holds runs of blocks under the hash of the block before them, which is not in `keys`; `waiting_blocks` counts them,
    `_waiting_bytes` what they have to hash; `_moved` has the hashes whose block came to the first cache, or left the
    last, since the last `take`.
    """

    def __init__(self, block_size: int, root: Callable[[str | None], BlockKey]) -> None:
        self.keys: dict[int, BlockKey] = {}
        self.parents: dict[BlockKey, BlockKey] = {}
        self.residents: list[Mapping[BlockKey, int]] = []  # of each cache with this block size: blocks and their copies
        self.waiting_blocks = 0
        self._waiting_bytes = 0
        self._block_size = block_size
        self._step = 4 * block_size
        self._root = root
        self._idle: dict[int, None] = {}  # oldest first
        self._more: dict[int, int] = {}
        self._moved: dict[int, None] = {}
        self._waiting: dict[int, dict[int, Stored]] = {}  # parent's hash -> first hash -> run; oldest parent first

    def learn(self, run: Stored) -> Sequence[int]:
        """Name the blocks of an event whose tokens are whole. Returns the hashes that have a name only since now."""
        parent = self._root(run.lora) if run.parent is None else self.keys.get(run.parent)
        if parent is None:
            self._park(run)
            return ()
        named: list[int] = []
        ready = [(parent, run)]
        while ready:
            key, run = ready.pop()
            tokens, extras, step = memoryview(run.tokens), run.extras, self._step
            for index, block_hash in enumerate(run.hashes):
                known = self.keys.get(block_hash)
                if known is None:
                    known = child_key(key, tokens[index * step : (index + 1) * step], extras.get(index, b""))
                    self.keys[block_hash] = known
                    self.parents[known] = key
                    self._idle[block_hash] = None
                    named.append(block_hash)
                    if block_hash in self._waiting:
                        ready += [(known, child) for child in self._unpark(block_hash)]
                elif known not in self.parents:  # another name of it was forgotten
                    self.parents[known] = key
                key = known
        return named

    def came(self, block_hash: int) -> None:
        """Some cache got a copy of a named block."""
        if block_hash in self._idle:
            del self._idle[block_hash]
            self._moved[block_hash] = None
        else:
            self._more[block_hash] = self._more.get(block_hash, 1) + 1

    def went(self, block_hash: int) -> None:
        """Some cache lost a copy of a named block."""
        more = self._more.get(block_hash)
        if more is None:
            self._idle[block_hash] = None
            self._moved[block_hash] = None
        elif more > 2:
            self._more[block_hash] = more - 1
        else:
            del self._more[block_hash]

    def doubt(self) -> None:
        """Copies are in doubt: names that are held count as one."""
        self._more.clear()

    def recount(self) -> None:
        """Caches changed in other ways than block by block: all names that are held count as new."""
        self._more.clear()
        self._idle.clear()
        held = self.residents[0] if len(self.residents) == 1 else _together(self.residents)
        for block_hash, key in self.keys.items():
            copies = held.get(key, 0)
            if copies == 0:
                self._idle[block_hash] = None
            elif copies > 1:
                self._more[block_hash] = copies

    def restore(self, names: Mapping[int, Name]) -> None:
        """Take these names for known; to be followed by `recount`, when the caches are known."""
        for block_hash, (key, parent) in names.items():
            self.keys[block_hash] = key
            self.parents[key] = parent

    @property
    def moved(self) -> int:
        """Names that `take` would give."""
        return len(self._moved)

    def take(self) -> Names:
        """The names of blocks that came to the caches since the last call, and of those that left them."""
        moved, self._moved = self._moved, {}
        came = self._held_of(moved)
        return self._as_names(came, [block_hash for block_hash in moved if block_hash not in came])

    def held(self) -> Names:
        """The names of all blocks that some cache holds."""
        self._moved.clear()
        return self._as_names(self._held_of(self.keys), ())

    def trim(self) -> None:
        """Where there are more than MAX_IDLE idle names, forget the oldest quarter of them."""
        if len(self._idle) <= MAX_IDLE:
            return
        for block_hash in list(islice(self._idle, len(self._idle) - MAX_IDLE * 3 // 4)):
            del self._idle[block_hash]
            key = self.keys.pop(block_hash)
            if not self._is_resident(key):
                self.parents.pop(key, None)

    def forget_waiting(self) -> None:
        """Drop the runs that wait for their parent."""
        self._waiting.clear()
        self.waiting_blocks = self._waiting_bytes = 0

    def _held_of(self, hashes: Iterable[int]) -> Mapping[int, BlockKey]:
        known, residents = self.keys, self.residents
        held = residents[0] if len(residents) == 1 else set[BlockKey]().union(*residents)
        return {each: key for each in hashes if (key := known.get(each)) is not None and key in held}

    def _as_names(self, held: Mapping[int, BlockKey], forgotten: Sequence[int]) -> Names:
        parents = [self.parents[key] for key in held.values()]
        return Names(self._block_size, held, parents, forgotten)

    def _is_resident(self, key: BlockKey) -> bool:
        return any(key in resident for resident in self.residents)

    def _park(self, run: Stored) -> None:
        assert run.parent is not None
        runs = self._waiting.setdefault(run.parent, {})
        before = runs.get(run.hashes[0])
        if before is not None and len(before.hashes) >= len(run.hashes):
            return
        runs[run.hashes[0]] = run
        self._count(run, 1)
        if before is not None:
            self._count(before, -1)
        while self.waiting_blocks > MAX_WAITING_BLOCKS or self._waiting_bytes > MAX_WAITING_BYTES:
            self._unpark(next(iter(self._waiting)))

    def _unpark(self, parent: int) -> Collection[Stored]:
        runs = self._waiting.pop(parent).values()
        for run in runs:
            self._count(run, -1)
        return runs

    def _count(self, run: Stored, sign: int) -> None:
        self.waiting_blocks += sign * len(run.hashes)
        self._waiting_bytes += sign * (len(run.tokens) + sum(map(len, run.extras.values())))


def _together(residents: Sequence[Mapping[BlockKey, int]]) -> Mapping[BlockKey, int]:
    copies = Counter[BlockKey]()
    for resident in residents:
        copies.update(resident)
    return copies
