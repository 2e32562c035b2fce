"""What one incarnation of one engine caches, as its events tell; pure, fed batch by batch in order.

Rules, each from what the engines do (recordings of vLLM 0.32; its and SGLang's sources):
1. A block's key comes from the tokens in the event and the key of its parent; groups and tiers whose events carry no
   whole tokens take the key from the full-attention group, whose blocks have the same hashes (`names`).
2. Copies are counted (`contents`).
3. A block stored after a parent proves that the parent, and all before it, are resident: they are in the block table of
   the request that computed it. True for full attention on the GPU only.
4. An event from the start of a prompt (no parent) whose blocks, two or more, are all resident stores nothing: it is the
   report that `kv_cache_report_mode=full` asks for. A repeated prompt of one block does store a second copy. Requests
   that skip reading the cache (prompt logprobs) look like a report too; their copies go uncounted, which costs a missed
   hit at worst, where the reverse would leave blocks in the index for ever. After lost events, when we may lack what is
   reported, any event from the start of two blocks or more adds only what we lack.
5. AllBlocksCleared empties the GPU, not the tiers behind it.
6. Where batches are missing, nothing is dropped, but what we hold is in doubt, and what we lack may be there, until the
   cache has turned over: as many removals in a row of blocks that we hold as we hold blocks, and no orphan.
"""

from collections.abc import Callable, Mapping, Sequence

from multipick_epp.events.cache_contents import CacheContents, Change
from multipick_epp.events.decode import Batch, Removed, Stored
from multipick_epp.events.key_table import KeyTable
from multipick_epp.state.caches import GPU, is_sliding
from multipick_epp.state.protocol import Cache
from multipick_epp.types import BlockKey, Endpoint, Mode

MAX_CACHES = 64
MAX_BLOCK_SIZE = 1 << 16  # tokens
MIN_TURN = 256  # removals; fewer prove nothing


class Tracker:
    """Invariants: one contents for each (medium, group); one `KeyTable` for each block size, shared by its contents;
    `_clears` happened before every change that the contents have not told yet.
    """

    def __init__(self, endpoint: Endpoint, root: Callable[[str | None], BlockKey], complete: bool) -> None:
        """`root` gives the parent key of prompts by LoRA adapter; `complete`: the engine's first batch comes first."""
        self.unplaced_blocks = 0  # stored blocks that no cache can take
        self._endpoint = endpoint
        self._root = root
        self._names: dict[int, KeyTable] = {}
        self._contents: dict[tuple[str, int], CacheContents] = {}
        self._clears: dict[str, None] = {}  # media, in order
        self._sure = complete
        self._turned = 0  # removals in a row without a surprise

    @property
    def mode(self) -> Mode:
        """EXACT where the GPU's contents are the engine's, block for block."""
        return Mode.EXACT if self._sure and not any(contents.unnamed for contents in self._gpu()) else Mode.APPROX

    @property
    def blocks(self) -> int:
        """Resident blocks, of all caches."""
        return sum(len(contents.copies) for contents in self._contents.values())

    @property
    def waiting_blocks(self) -> int:
        """Stored blocks whose parent is unknown."""
        return sum(names.waiting_blocks for names in self._names.values())

    @property
    def pending(self) -> int:
        """Operations that `take` would give."""
        return sum(len(contents.changes) for contents in self._contents.values())

    def take(self) -> tuple[Sequence[str], Sequence[Change]]:
        """What changed since the last call: media that were cleared, then changes, to be told in this order."""
        clears, self._clears = list(self._clears), {}
        return clears, [contents.take() for contents in self._contents.values() if contents.changes]

    def contents(self) -> Mapping[Cache, Sequence[BlockKey]]:
        """All that is resident, for a state that has to be told anew; `take` goes on from here."""
        self._clears.clear()
        for contents in self._contents.values():
            contents.changes.clear()
        return {contents.cache: list(contents.copies) for contents in self._contents.values()}

    def apply(self, batch: Batch) -> int:
        """One batch, the next in order. Returns the blocks that it announces, stored and removed."""
        operations = 0
        for event in batch.events:
            if isinstance(event, Stored):
                self._stored(event)
                operations += len(event.hashes)
            elif isinstance(event, Removed):
                self._removed(event)
                operations += len(event.hashes)
            else:
                self._cleared()
        if batch.unreadable:
            self.lost()
        for names in self._names.values():
            names.trim()
        return operations

    def lost(self) -> None:
        """Batches are missing between the last one and the next."""
        self._turned = 0
        in_doubt_already = not self._sure and not any(contents.confirmed for contents in self._contents.values())
        self._sure = False
        for contents in self._contents.values():
            contents.unnamed.clear()  # nothing could confirm them
        if in_doubt_already:  # an engine that nothing can be read of must not cost us a pass over all blocks each time
            return
        for contents in self._contents.values():
            contents.doubt()
        for names in self._names.values():
            names.recount()

    def _stored(self, event: Stored) -> None:
        if event.remote or not event.hashes:
            return
        contents = self._contents_of(event)
        if contents is None:
            self.unplaced_blocks += len(event.hashes)
            return
        names = contents.names
        if len(event.tokens) == 4 * event.block_size * len(event.hashes) and not is_sliding(contents.cache):
            self._announce(names, names.learn(event))
            if event.medium == GPU and self._proves(event, contents):
                return
        for block_hash in event.hashes:
            if not contents.add(block_hash):
                self._turned = 0

    def _proves(self, event: Stored, contents: CacheContents) -> bool:
        """Rules 3 and 4: note what the event proves; True where it is taken for a report."""
        keys, parents = contents.names.keys, contents.names.parents
        if event.parent in keys:
            contents.confirm_chain(keys[event.parent], parents)
            return False
        if event.parent is not None or len(event.hashes) < 2:
            return False
        new = [block_hash for block_hash in event.hashes if keys[block_hash] not in contents.copies]
        if new and self._sure:
            return False
        for block_hash in new:
            contents.add(block_hash)
        contents.confirm_chain(keys[event.hashes[-1]], parents)
        return True

    def _removed(self, event: Removed) -> None:
        if event.remote:
            return
        contents = self._contents.get((event.medium, event.group))
        for block_hash in event.hashes:
            held = contents is not None and contents.remove(block_hash)
            if not self._sure and event.medium == GPU:
                self._turned = self._turned + 1 if held else 0
        if not self._sure and self._turned >= max(MIN_TURN, sum(len(gpu.copies) for gpu in self._gpu())):
            self._settle()

    def _cleared(self) -> None:
        for contents in self._gpu():
            contents.clear()
        for names in self._names.values():
            names.forget_waiting()
        self._clears[GPU] = None
        self._settle()

    def _settle(self) -> None:
        self._sure = True
        for contents in self._contents.values():
            contents.settle()
        for names in self._names.values():
            names.recount()

    def _announce(self, names: KeyTable, hashes: Sequence[int]) -> None:
        for contents in self._contents.values():
            if contents.names is names and contents.unnamed:
                for block_hash in hashes:
                    contents.named(block_hash)

    def _gpu(self) -> list[CacheContents]:
        return [contents for contents in self._contents.values() if contents.cache.medium == GPU]

    def _contents_of(self, event: Stored) -> CacheContents | None:
        """The contents that the event is about; None for one that can't be."""
        contents = self._contents.get((event.medium, event.group))
        if contents is not None:
            return contents if event.block_size in (0, contents.cache.block_size) else None
        gpu = self._contents.get((GPU, event.group))  # offload tiers don't say their block size
        block_size = event.block_size or (gpu.cache.block_size if gpu else 0)
        if not 0 < block_size <= MAX_BLOCK_SIZE or len(self._contents) >= MAX_CACHES:
            return None
        if block_size not in self._names:
            self._names[block_size] = KeyTable(block_size, self._root)
        kind, window = (gpu.cache.kind, gpu.cache.window) if gpu else (event.kind, event.window)
        cache = Cache(self._endpoint, block_size, event.medium, event.group, kind, window)
        contents = CacheContents(cache, self._names[block_size], self._sure)
        self._contents[event.medium, event.group] = contents
        return contents
