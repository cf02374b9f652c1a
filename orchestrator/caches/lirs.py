"""LIRS: what was accessed twice within a short time stays; one access alone earns little.

An entry's inter-reference recency is the number of other keys accessed between its last two
accesses. Those with a low one (LIR) hold all of the room but for the share ``hir``, which is the
queue of the others (HIR), in whose order they leave. A stack orders keys by their last access and
ends at the oldest LIR entry. An HIR key that is accessed while it is on the stack, resident or
not, has a lower recency than that oldest LIR entry and takes its place, which then is HIR (Jiang
and Zhang, "LIRS: An Efficient Low Inter-reference Recency Set Replacement Policy", SIGMETRICS
2002, section 3). The paper does not bound the stack; here it remembers no more keys that left
(ghosts) than the cache has room for, as in libCacheSim. O(1) an access: whatever falls off the
stack was put on it by one access. Rules of size: :mod:`orchestrator.caches._room`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from orchestrator.caches._segments import Segment, SegmentedCache
from orchestrator.core.load import CacheParams
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class LirsParams(CacheParams):
    hir: float = number(0.01, low=0.0, high=1.0, help="share of the entries of high recency")


@register(Family.CACHE, "lirs", params=LirsParams)
class LowInterReferenceRecency(SegmentedCache):
    """Keeps what was accessed twice within a short time, by a stack of recent keys"""

    __slots__ = ("_ghosts", "_high", "_low", "_low_room", "_stack")

    def __init__(self, params: LirsParams) -> None:
        super().__init__(params)
        self._low, self._high, self._ghosts = Segment(), Segment(), Segment()
        self._segments = (self._low, self._high)
        self._low_room = self._amount - self._share(params.hir)
        self._stack: OrderedDict[bytes, None] = OrderedDict()
        """Keys by last access, oldest first, which is a LIR entry; not all are resident."""

    def access(self, key: bytes, size: int, now_ns: int) -> bool:
        """Whether it was there; a missing one is put in. ``size`` in bytes, 0 or more."""
        weight = size if self._in_bytes else 1
        held = self._low.entries.get(key)
        if held is not None:
            self._stack.move_to_end(key)
            self._prune()
            return held == weight or self._resize(self._low, key, weight)
        held = self._high.entries.get(key)
        if held is None:
            if weight <= self._amount:
                self._put(key, weight)
            return False
        if key in self._stack and weight <= self._amount:
            self._high.drop(key)
            self._raise(key, held)
            # One larger than the room of the LIR entries does not stay among them.
            now_in = self._low if key in self._low.entries else self._high
            return held == weight or self._resize(now_in, key, weight)
        self._high.entries.move_to_end(key)
        self._stack[key] = None
        self._prune()
        return held == weight or self._resize(self._high, key, weight)

    def forget(self, key: bytes) -> None:
        """Drop an entry if it is there."""
        if key in self:
            super().forget(key)
            self._stack.pop(key, None)
            self._prune()

    def _put(self, key: bytes, weight: int) -> None:
        room = self._amount - weight
        if key in self._ghosts.entries:
            # First, or the entry that leaves for it might push it out of the ghosts.
            self._ghosts.drop(key)
            self._shrink(room)
            self._used += weight
            self._raise(key, weight)
            return
        self._shrink(room)
        self._used += weight
        low = self._low.used + weight <= self._low_room
        (self._low if low else self._high).push(key, weight)
        self._stack[key] = None
        self._prune()

    def _raise(self, key: bytes, weight: int) -> None:
        """A key of the stack becomes LIR."""
        self._low.push(key, weight)
        self._stack[key] = None
        self._stack.move_to_end(key)
        self._settle()

    def _shrink(self, amount: int) -> None:
        """Entries leave until no more than ``amount`` is used."""
        self._settle()
        super()._shrink(amount)

    def _settle(self) -> None:
        """The oldest LIR entries become HIR while all have more than their room."""
        while self._low.used > self._low_room:
            self._lower()

    def _lower(self) -> None:
        oldest, _ = self._stack.popitem(last=False)
        self._high.push(oldest, self._low.drop(oldest))
        self._prune()

    def _prune(self) -> None:
        """The stack ends at the oldest LIR entry."""
        stack, low, ghosts = self._stack, self._low.entries, self._ghosts
        while stack:
            if next(iter(stack)) in low:
                return
            key, _ = stack.popitem(last=False)
            if key in ghosts.entries:
                ghosts.drop(key)

    def _evict(self) -> None:
        if not self._high.entries:
            self._lower()
        key, weight = self._high.pop()
        self._used -= weight
        self._leaves(key)
        if key in self._stack:
            self._ghosts.push(key, weight)
            while self._ghosts.used > self._amount:
                del self._stack[self._ghosts.pop()[0]]
