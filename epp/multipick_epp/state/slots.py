"""Which bit of the mirror's masks is which slot, and what a lookup needs to know of the slots at once."""

from collections.abc import Mapping, Sequence

from multipick_epp.state.mirror import indexes
from multipick_epp.state.protocol import Slot
from multipick_epp.types import Endpoint, Mode

GPU = "GPU"
SLOTS_AT_MOST = 32
"""Slots of one endpoint. Hybrid models have up to a dozen groups, on a few mediums."""
MANY = 16
"""Endpoints, from which on to name them takes longer than to look up whether they have been named before."""
MASKS_AT_MOST = 64


def is_sliding(slot: Slot) -> bool:
    """A group that needs only the last blocks before the hit's end: a sliding window, or Mamba's last state."""
    return slot.window > 0 or slot.kind == "mamba"


def is_main(slot: Slot) -> bool:
    """A full-attention group on the GPU: what most endpoints have, and have one of."""
    return slot.medium == GPU and not is_sliding(slot)


class Slots:
    """Invariants: `bits`, `endpoint_at` and `of` describe the same pairs; `by_size` ORs the bits of each block size;
    `plain` ORs, by mode, the bits of the slots that decide their endpoint's hit alone.
    """

    def __init__(self) -> None:
        self.bits: dict[Slot, int] = {}
        self.endpoint_at: dict[int, Endpoint] = {}  # by the bit's index
        self.of: dict[Endpoint, dict[Slot, int]] = {}
        self.by_size: dict[int, int] = {}
        self.plain: dict[Mode, int] = dict.fromkeys(Mode, 0)
        self._modes: dict[Endpoint, Mode] = {}
        self._named: dict[int, Sequence[Endpoint]] = {}  # by mask

    def assign(self, slot: Slot, bit: int) -> int | None:
        """From now on `bit` is `slot`'s; the bit that was, if any."""
        old = self.forget(slot)
        self._named.clear()
        self.bits[slot] = bit
        self.endpoint_at[bit.bit_length() - 1] = slot.endpoint
        self.of.setdefault(slot.endpoint, {})[slot] = bit
        self.by_size[slot.block_size] = self.by_size.get(slot.block_size, 0) | bit
        self._sort_out(slot.endpoint)
        return old

    def endpoints_of(self, mask: int) -> Sequence[Endpoint]:
        """The endpoints of the slots in `mask`. Large masks come again: those of the holders of a common head."""
        named = self._named.get(mask)
        if named is None:
            named = [self.endpoint_at[index] for index in indexes(mask)]
            if len(named) >= MANY:
                if len(self._named) >= MASKS_AT_MOST:
                    self._named.clear()
                self._named[mask] = named
        return named

    def forget(self, slot: Slot) -> int | None:
        """The slot is gone; its bit, if it had one."""
        bit = self.bits.pop(slot, None)
        if bit is None:
            return None
        self._named.clear()
        del self.endpoint_at[bit.bit_length() - 1]
        self.by_size[slot.block_size] ^= bit
        if not self.by_size[slot.block_size]:
            del self.by_size[slot.block_size]
        self._make_plain(bit, None)
        del self.of[slot.endpoint][slot]
        self._sort_out(slot.endpoint)
        if not self.of[slot.endpoint]:
            del self.of[slot.endpoint]
        return bit

    def of_endpoint(self, endpoint: Endpoint) -> Mapping[Slot, int]:
        """The endpoint's slots and their bits."""
        return self.of.get(endpoint, {})

    def set_mode(self, endpoint: Endpoint, mode: Mode | None) -> None:
        """How well the endpoint is known; None: forget what was said."""
        if mode is None:
            self._modes.pop(endpoint, None)
        else:
            self._modes[endpoint] = mode
        self._sort_out(endpoint)

    def mode(self, endpoint: Endpoint) -> Mode:
        """BLIND before the first `set_mode`."""
        return self._modes.get(endpoint, Mode.BLIND)

    def _sort_out(self, endpoint: Endpoint) -> None:
        slots = self.of_endpoint(endpoint)
        for slot, bit in slots.items():
            self._make_plain(bit, self.mode(endpoint) if len(slots) == 1 and is_main(slot) else None)

    def _make_plain(self, bit: int, mode: Mode | None) -> None:
        for each in self.plain:
            self.plain[each] = self.plain[each] | bit if each is mode else self.plain[each] & ~bit
