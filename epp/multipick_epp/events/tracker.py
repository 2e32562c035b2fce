"""What one incarnation of one engine caches, as its events tell; pure, fed batch by batch in order.

Rules, each from what the engines do (recordings of vLLM 0.32; its and SGLang's sources):
1. A block's key comes from the tokens in the event and the key of its parent; groups and tiers whose events carry no
   whole tokens take the key from the full-attention group, whose blocks have the same hashes (`names`).
2. Copies are counted (`holding`).
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

from multipick_epp.events.decode import Batch, Removed, Stored
from multipick_epp.events.holding import Change, Holding
from multipick_epp.events.names import Names
from multipick_epp.state.protocol import Slot
from multipick_epp.state.slots import GPU, is_sliding
from multipick_epp.types import BlockKey, Endpoint, Mode

MAX_HOLDINGS = 64
MAX_BLOCK_SIZE = 1 << 16  # tokens
MIN_TURN = 256  # removals; fewer prove nothing


class Tracker:
    """Invariants: one holding for each (medium, group); one `Names` for each block size, shared by its holdings;
    `_clears` happened before every change that the holdings have not told yet.
    """

    def __init__(self, endpoint: Endpoint, root: Callable[[str | None], BlockKey], complete: bool) -> None:
        """`root` gives the parent key of prompts by LoRA adapter; `complete`: the engine's first batch comes first."""
        self.unplaced_blocks = 0  # stored blocks that no slot can take
        self._endpoint = endpoint
        self._root = root
        self._names: dict[int, Names] = {}
        self._holdings: dict[tuple[str, int], Holding] = {}
        self._clears: dict[str, None] = {}  # media, in order
        self._sure = complete
        self._turned = 0  # removals in a row without a surprise

    @property
    def mode(self) -> Mode:
        """EXACT where the GPU's holdings are the engine's, block for block."""
        return Mode.EXACT if self._sure and not any(holding.unnamed for holding in self._gpu()) else Mode.APPROX

    @property
    def blocks(self) -> int:
        """Resident blocks, of all slots."""
        return sum(len(holding.copies) for holding in self._holdings.values())

    @property
    def waiting_blocks(self) -> int:
        """Stored blocks whose parent is unknown."""
        return sum(names.waiting_blocks for names in self._names.values())

    @property
    def pending(self) -> int:
        """Operations that `take` would give."""
        return sum(len(holding.changes) for holding in self._holdings.values())

    def take(self) -> tuple[Sequence[str], Sequence[Change]]:
        """What changed since the last call: media that were cleared, then changes, to be told in this order."""
        clears, self._clears = list(self._clears), {}
        return clears, [holding.take() for holding in self._holdings.values() if holding.changes]

    def contents(self) -> Mapping[Slot, Sequence[BlockKey]]:
        """All that is resident, for a state that has to be told anew; `take` goes on from here."""
        self._clears.clear()
        for holding in self._holdings.values():
            holding.changes.clear()
        return {holding.slot: list(holding.copies) for holding in self._holdings.values()}

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
        in_doubt_already = not self._sure and not any(holding.confirmed for holding in self._holdings.values())
        self._sure = False
        for holding in self._holdings.values():
            holding.unnamed.clear()  # nothing could confirm them
        if in_doubt_already:  # an engine that nothing can be read of must not cost us a pass over all blocks each time
            return
        for holding in self._holdings.values():
            holding.doubt()
        for names in self._names.values():
            names.recount()

    def _stored(self, event: Stored) -> None:
        if event.remote or not event.hashes:
            return
        holding = self._holding(event)
        if holding is None:
            self.unplaced_blocks += len(event.hashes)
            return
        names = holding.names
        if len(event.tokens) == 4 * event.block_size * len(event.hashes) and not is_sliding(holding.slot):
            self._announce(names, names.learn(event))
            if event.medium == GPU and self._proves(event, holding):
                return
        for block_hash in event.hashes:
            if not holding.add(block_hash):
                self._turned = 0

    def _proves(self, event: Stored, holding: Holding) -> bool:
        """Rules 3 and 4: note what the event proves; True where it is taken for a report."""
        keys, parents = holding.names.keys, holding.names.parents
        if event.parent in keys:
            holding.confirm_chain(keys[event.parent], parents)
            return False
        if event.parent is not None or len(event.hashes) < 2:
            return False
        new = [block_hash for block_hash in event.hashes if keys[block_hash] not in holding.copies]
        if new and self._sure:
            return False
        for block_hash in new:
            holding.add(block_hash)
        holding.confirm_chain(keys[event.hashes[-1]], parents)
        return True

    def _removed(self, event: Removed) -> None:
        if event.remote:
            return
        holding = self._holdings.get((event.medium, event.group))
        for block_hash in event.hashes:
            held = holding is not None and holding.remove(block_hash)
            if not self._sure and event.medium == GPU:
                self._turned = self._turned + 1 if held else 0
        if not self._sure and self._turned >= max(MIN_TURN, sum(len(gpu.copies) for gpu in self._gpu())):
            self._settle()

    def _cleared(self) -> None:
        for holding in self._gpu():
            holding.clear()
        for names in self._names.values():
            names.forget_waiting()
        self._clears[GPU] = None
        self._settle()

    def _settle(self) -> None:
        self._sure = True
        for holding in self._holdings.values():
            holding.settle()
        for names in self._names.values():
            names.recount()

    def _announce(self, names: Names, hashes: Sequence[int]) -> None:
        for holding in self._holdings.values():
            if holding.names is names and holding.unnamed:
                for block_hash in hashes:
                    holding.named(block_hash)

    def _gpu(self) -> list[Holding]:
        return [holding for holding in self._holdings.values() if holding.slot.medium == GPU]

    def _holding(self, event: Stored) -> Holding | None:
        """The holding that the event is about; None for one that can't be."""
        holding = self._holdings.get((event.medium, event.group))
        if holding is not None:
            return holding if event.block_size in (0, holding.slot.block_size) else None
        gpu = self._holdings.get((GPU, event.group))  # offload tiers don't say their block size
        block_size = event.block_size or (gpu.slot.block_size if gpu else 0)
        if not 0 < block_size <= MAX_BLOCK_SIZE or len(self._holdings) >= MAX_HOLDINGS:
            return None
        if block_size not in self._names:
            self._names[block_size] = Names(block_size, self._root)
        kind, window = (gpu.slot.kind, gpu.slot.window) if gpu else (event.kind, event.window)
        slot = Slot(self._endpoint, block_size, event.medium, event.group, kind, window)
        holding = Holding(slot, self._names[block_size], self._sure)
        self._holdings[event.medium, event.group] = holding
        return holding
