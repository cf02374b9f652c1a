"""The room of a cache, and the rules of size that all policies keep.

Room is counted in entries (each weighs 1, whatever its size) or in bytes (each weighs its
size; an entry of size 0 takes no room).

* Before a missing entry is put in, entries leave as the policy chooses until it fits.
* A hit with another size is still a hit, and the entry weighs its new size from then on. If
  it grew, entries leave as the policy chooses until all fit; it may be one of them itself.
* An access larger than the whole cache is a miss and puts nothing in. Nothing else leaves,
  but for a smaller entry of the same key, which is out of date and is dropped.
* ``evictions`` counts every entry that left for want of room, and none that was forgotten.
  ``departed`` lists them where an owner wants them listed.

Where a policy has several segments, the room of each is a share of the whole, at least one
entry or byte. Only the room of the whole is never exceeded: that of a segment says where the
next entry leaves from, and one entry that is larger than its segment is held nevertheless.
Ghosts (keys that left and are remembered) weigh what their entries weighed last and hold no
data; forgetting an entry leaves no ghost behind and takes none away.

The oracle of the tests, libCacheSim, differs in one point: it keeps the size of an entry's
first access for as long as the entry stays.
"""

from __future__ import annotations

from abc import abstractmethod

from orchestrator.core.load import CacheParams


class Room:
    """How much there is, how much is used, and what left for want of it."""

    __slots__ = ("_amount", "_in_bytes", "_used", "departed", "evictions")

    def __init__(self, params: CacheParams) -> None:
        self._amount = params.size.amount
        self._in_bytes = params.size.in_bytes
        self._used = 0
        self.evictions = 0
        self.departed: list[bytes] | None = None

    def advance(self, now_ns: int) -> None:
        """Nothing expires."""

    def _share(self, share: float) -> int:
        """Room of a segment that has this share of the whole; something is left for the rest."""
        return max(1, min(int(share * self._amount), self._amount - 1))

    def _leaves(self, key: bytes) -> None:
        """An entry has left for want of room."""
        self.evictions += 1
        if self.departed is not None:
            self.departed.append(key)


class EntriesCache(Room):
    """A room with one table of entries: key -> weight."""

    __slots__ = ("_entries",)

    def __init__(self, params: CacheParams) -> None:
        super().__init__(params)
        self._entries: dict[bytes, int] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    @abstractmethod
    def forget(self, key: bytes) -> None:
        """Drop an entry if it is there."""

    @abstractmethod
    def _shrink(self, amount: int) -> None:
        """Entries leave until no more than ``amount`` is used."""

    def _put(self, key: bytes, weight: int) -> bool:
        """Put a missing entry in; whether it can fit at all."""
        if weight > self._amount:
            return False
        used = self._used + weight
        if used > self._amount:
            self._shrink(self._amount - weight)
            used = self._used + weight
        self._entries[key] = weight
        self._used = used
        return True

    def _resize(self, key: bytes, weight: int) -> bool:
        """Give a present entry its new weight; whether the access counts as a hit."""
        if weight > self._amount:
            self.forget(key)
            self._leaves(key)
            return False
        self._used += weight - self._entries[key]
        self._entries[key] = weight
        if self._used > self._amount:
            self._shrink(self._amount)
        return True
