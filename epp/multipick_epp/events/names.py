"""The engine's hashes -> our block keys, for the blocks of one engine and one block size.

An event names the block before its first by the engine's hash; everything else needed for our chain is in the event. So
a block gets its key when the key of its parent is known, and waits for it otherwise. Being named says nothing of being
resident: the name outlives the block, since offload tiers and sliding-window groups name a block by its hash alone.
"""

from collections.abc import Callable, Collection, Sequence

from multipick_epp.blocks import child_key
from multipick_epp.events.decode import Stored
from multipick_epp.types import BlockKey

MAX_WAITING_BLOCKS = 8192
_SLACK = 8192  # names of blocks that left, kept beyond a quarter of those that are resident


class Names:
    """Invariants: `parents` has exactly the keys of `keys.values()`, a root being no key; `_waiting` holds runs of
    blocks under the hash of the block before them, which is not in `keys`; `waiting_blocks` counts their blocks.
    """

    def __init__(self, block_size: int, root: Callable[[str | None], BlockKey]) -> None:
        self.keys: dict[int, BlockKey] = {}
        self.parents: dict[BlockKey, BlockKey] = {}
        self.waiting_blocks = 0
        self.dropped_blocks = 0  # waited for a parent until there were too many
        self._step = 4 * block_size
        self._root = root
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
                    named.append(block_hash)
                    if block_hash in self._waiting:
                        ready += [(known, child) for child in self._unpark(block_hash)]
                key = known
        return named

    def forget_waiting(self) -> None:
        """Drop the runs that wait for their parent."""
        self._waiting.clear()
        self.waiting_blocks = 0

    def forget(self, resident: Sequence[Collection[BlockKey]]) -> None:
        """Drop names of blocks that left, once they are many. Costs nothing but once in thousands of removals."""
        live = sum(len(keys) for keys in resident)
        if len(self.keys) <= live + live // 4 + _SLACK:
            return
        self.keys = {name: key for name, key in self.keys.items() if any(key in keys for keys in resident)}
        kept = set(self.keys.values())
        self.parents = {key: parent for key, parent in self.parents.items() if key in kept}

    def _park(self, run: Stored) -> None:
        assert run.parent is not None
        runs = self._waiting.setdefault(run.parent, {})
        before = runs.get(run.hashes[0])
        if before is not None and len(before.hashes) >= len(run.hashes):
            return
        runs[run.hashes[0]] = run
        self.waiting_blocks += len(run.hashes) - (len(before.hashes) if before else 0)
        while self.waiting_blocks > MAX_WAITING_BLOCKS:
            self.dropped_blocks += sum(len(dropped.hashes) for dropped in self._unpark(next(iter(self._waiting))))

    def _unpark(self, parent: int) -> Collection[Stored]:
        runs = self._waiting.pop(parent).values()
        self.waiting_blocks -= sum(len(run.hashes) for run in runs)
        return runs
