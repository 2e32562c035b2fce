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

from collections.abc import Callable, Collection, Mapping, Sequence

from multipick_epp.events.cache_contents import CacheContents, Change
from multipick_epp.events.decode import Batch, Removed, Stored
from multipick_epp.events.key_table import KeyTable
from multipick_epp.events.unnamed import UnnamedBlocks
from multipick_epp.state.cache import Cache
from multipick_epp.state.caches import CACHES_AT_MOST, GPU, bound_of, is_sliding
from multipick_epp.state.succession import Inheritance, Notes, Position
from multipick_epp.types import BlockKey, Endpoint, Mode

MAX_BLOCK_SIZES = 4
"""Of one engine: every request is hashed by all of them. Hybrid models have two or three."""
MIN_TURN = 256  # removals; fewer prove nothing


class Tracker:
    """Invariants: one contents for each (medium, group); one `KeyTable` for each block size, shared by its contents;
    `_unsized` has the offload tiers of groups whose GPU cache isn't known yet, and with it the block size; `_clears`
    happened before every change that the contents have not told yet; `_renamed`: names and copies changed as a whole
    since they were last noted; `_uncounted`: and the names have not been counted since, which is done once a batch.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        root: Callable[[str | None], BlockKey],
        complete: bool,
        media: Collection[str] = (),
    ) -> None:
        """`root` gives the parent key of prompts by LoRA adapter; `complete`: the engine's first batch comes first;
        `media` are followed beside the GPU, in capitals.
        """
        self.unplaced_blocks = 0  # stored blocks that no cache can take
        self.skipped_blocks = 0  # stored blocks on media that aren't followed
        self.limit = ""  # what the engine has more of than is followed: its caches aren't known whole
        self._endpoint = endpoint
        self._root = root
        self._media = frozenset({GPU, *media})
        self._names: dict[int, KeyTable] = {}
        self._contents: dict[tuple[str, int], CacheContents] = {}
        self._unsized: dict[tuple[str, int], UnnamedBlocks] = {}
        self._clears: dict[str, None] = {}  # media, in order
        self._sure = complete
        self._turned = 0  # removals in a row without a surprise
        self._renamed = True
        self._uncounted = False

    @classmethod
    def restored(
        cls,
        endpoint: Endpoint,
        root: Callable[[str | None], BlockKey],
        left: Inheritance,
        media: Collection[str] = (),
    ) -> "Tracker | None":
        """The tracker whose blocks and notes these are, ready for the batch after them. None where they can't be one's.

        What it held in doubt, or without a name, is in doubt again.
        """
        tracker = cls(endpoint, root, left.position.exact, media)
        for cache, blocks in left.contents.items():
            contents = None
            if cache.medium in tracker._media and (cache.medium, cache.group) not in tracker._contents:
                contents = tracker._new_contents(cache.medium, cache.group, cache.block_size, cache, UnnamedBlocks())
            copies = left.copies.get(cache, {})
            if contents is None or not copies.keys() <= set(blocks):
                return None
            contents.restore(blocks, copies)
        for size, names in tracker._names.items():
            names.restore(left.names.get(size, {}))
            names.recount()
        if left.copies.keys() - left.contents.keys():
            return None
        for contents in tracker._contents.values():
            if contents.forget_nameless() and left.position.exact:
                return None
        tracker._renamed = False
        return tracker

    @property
    def mode(self) -> Mode:
        """EXACT where the GPU's contents are the engine's, block for block."""
        sure = self._sure and not self.limit and not any(contents.unnamed for contents in self._gpu())
        return Mode.EXACT if sure else Mode.APPROX

    @property
    def blocks(self) -> int:
        """Resident blocks, of all caches."""
        return sum(len(contents.copies) for contents in self._contents.values())

    @property
    def entries(self) -> int:
        """What is held in memory: blocks and names, about 130 bytes each."""
        unnamed = [*self._unsized.values(), *(contents.unnamed for contents in self._contents.values())]
        return self.blocks + sum(map(len, unnamed)) + sum(len(names.keys) for names in self._names.values())

    @property
    def waiting_blocks(self) -> int:
        """Stored blocks whose parent is unknown."""
        return sum(names.waiting_blocks for names in self._names.values())

    @property
    def pending(self) -> int:
        """Operations that `take` would give, and notes."""
        changes = sum(len(contents.changes) + len(contents.recounted) for contents in self._contents.values())
        return changes + sum(names.moved for names in self._names.values())

    def take(self) -> tuple[Sequence[str], Sequence[Change]]:
        """What changed since the last call: media that were cleared, then changes, to be told in this order."""
        clears, self._clears = list(self._clears), {}
        return clears, [contents.take() for contents in self._contents.values() if contents.changes]

    def contents(self) -> Mapping[Cache, Sequence[BlockKey]]:
        """All that is resident, for a state that has to be told anew; `take` and `notes` go on from here."""
        self._clears.clear()
        self._renamed = True
        for contents in self._contents.values():
            contents.changes.clear()
        return {contents.cache: list(contents.copies) for contents in self._contents.values()}

    def notes(self, position: Position | None) -> Notes:
        """What a successor needs to know, beside the blocks, to go on from the last batch, which is at `position`: what
        changed of it since the last call, or all.
        """
        whole, self._renamed = self._renamed, False
        names = [names.held() if whole else names.take() for names in self._names.values()]
        caches = self._contents.values()
        copies = {each.cache: each.several() if whole else each.take_copies() for each in caches}
        if position is not None and self.limit:
            position = None  # there is more than is followed, and who comes next would not know of it
        return Notes(position, names, {cache: some for cache, some in copies.items() if some}, whole)

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
            if self._uncounted:
                names.recount()
            names.trim()
        self._uncounted = False
        return operations

    def lost(self) -> None:
        """Batches are missing between the last one and the next."""
        self._turned = 0
        in_doubt_already = not self._sure and not any(contents.confirmed for contents in self._contents.values())
        self._sure = False
        if in_doubt_already:  # an engine that nothing can be read of must not cost us a pass over all blocks each time
            return
        for contents in self._contents.values():
            contents.doubt()
        for unnamed in self._unsized.values():
            unnamed.doubt()
        for names in self._names.values():
            names.doubt()

    def _stored(self, event: Stored) -> None:
        if event.remote or not event.hashes:
            return
        if event.medium not in self._media:
            self.skipped_blocks += len(event.hashes)
            return
        contents = self._contents_of(event)
        if contents is None:
            self._unplaced(event)
            return
        names = contents.names
        whole = len(event.tokens) == 4 * contents.cache.block_size * len(event.hashes)
        if whole and not is_sliding(contents.cache):
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
        if event.remote or event.medium not in self._media:
            return
        place = event.medium, event.group
        holder = self._contents.get(place) or self._unsized.get(place)
        for block_hash in event.hashes:
            held = holder is not None and holder.remove(block_hash)
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
        if not self._sure:
            for contents in self._contents.values():
                contents.settle()
            for unnamed in self._unsized.values():
                unnamed.settle()
        self._sure = self._renamed = self._uncounted = True

    def _announce(self, names: KeyTable, hashes: Sequence[int]) -> None:
        for contents in self._contents.values():
            if contents.names is names and contents.unnamed:
                for block_hash in hashes:
                    contents.named(block_hash)

    def _gpu(self) -> list[CacheContents]:
        return [contents for contents in self._contents.values() if contents.cache.medium == GPU]

    def _contents_of(self, event: Stored) -> CacheContents | None:
        """The contents that the event is about; None for one that can't be, or whose block size isn't known."""
        contents = self._contents.get((event.medium, event.group))
        if contents is not None and event.block_size in (0, contents.cache.block_size):
            return contents
        gpu = self._contents.get((GPU, event.group))
        on_gpu = event.medium == GPU
        # Offload tiers name a block by its hash alone, and say no block size, or one of their own units.
        size = event.block_size if on_gpu or event.tokens else gpu.cache.block_size if gpu else 0
        if contents is not None and size == contents.cache.block_size:
            return contents
        if contents is not None or size == 0:
            if on_gpu:
                self.limit = "blocks of another size in one cache" if contents else "blocks without a size"
            return None
        contents = self._new_contents(event.medium, event.group, size, gpu.cache if gpu else event, UnnamedBlocks())
        if on_gpu and contents is not None:
            for medium, group in [place for place in self._unsized if place[1] == event.group]:
                self._new_contents(medium, group, size, contents.cache, self._unsized.pop((medium, group)))
        return contents

    def _new_contents(
        self, medium: str, group: int, block_size: int, like: Cache | Stored, unnamed: UnnamedBlocks
    ) -> CacheContents | None:
        """`like` says what kind of group it is. None where an engine may not have more: beyond the GPU nothing is exact
        anyway, so only there it is a `limit`.
        """
        names = self._names.get(block_size)
        cache = Cache(self._endpoint, block_size, medium, group, like.kind, like.window)
        too_many = bound_of([each.cache for each in self._contents.values()], cache)
        if not too_many and names is None and len(self._names) >= MAX_BLOCK_SIZES:
            too_many = f"more than {MAX_BLOCK_SIZES} block sizes"
        if too_many:
            self.limit = too_many if medium == GPU else self.limit
            return None
        if names is None:
            names = self._names[block_size] = KeyTable(block_size, self._root)
        contents = self._contents[medium, group] = CacheContents(cache, names, unnamed, self._sure)
        for block_hash in [block_hash for block_hash in unnamed if block_hash in names.keys]:
            contents.named(block_hash)
        return contents

    def _unplaced(self, event: Stored) -> None:
        """A tier's blocks wait for their group's GPU cache, which tells their size; others have no place."""
        place = event.medium, event.group
        waits = event.medium != GPU and not event.tokens and place not in self._contents
        if not waits or (GPU, event.group) in self._contents or len(self._unsized) >= CACHES_AT_MOST:
            self.unplaced_blocks += len(event.hashes)
            return
        unnamed = self._unsized.setdefault(place, UnnamedBlocks())
        for block_hash in event.hashes:
            unnamed.add(block_hash)
