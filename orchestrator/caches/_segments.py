"""What caches of several segments have in common. Rules of size:
:mod:`orchestrator.caches._room`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict

from orchestrator.caches._room import Room


class Segment:
    """Keys in order (head first), each with its weight, and the room they take together."""

    __slots__ = ("entries", "used")

    def __init__(self) -> None:
        self.entries: OrderedDict[bytes, int] = OrderedDict()
        self.used = 0

    def push(self, key: bytes, weight: int) -> None:
        """Put a key that is not there in at the tail."""
        self.entries[key] = weight
        self.used += weight

    def pop(self) -> tuple[bytes, int]:
        """Take the head out."""
        key, weight = self.entries.popitem(last=False)
        self.used -= weight
        return key, weight

    def drop(self, key: bytes) -> int:
        """Take a key out that is there; its weight."""
        weight = self.entries.pop(key)
        self.used -= weight
        return weight

    def trim(self, room: int) -> None:
        """Keys leave from the head until no more than ``room`` is used."""
        while self.used > room:
            self.pop()


class SegmentedCache(Room):
    """Entries that are each in one of ``_segments``; ``_used`` is the room of all of them."""

    __slots__ = ("_segments",)

    _segments: tuple[Segment, ...]

    def __contains__(self, key: object) -> bool:
        return any(key in segment.entries for segment in self._segments)

    def forget(self, key: bytes) -> None:
        """Drop an entry if it is there."""
        for segment in self._segments:
            if key in segment.entries:
                self._used -= segment.drop(key)

    def _resize(self, segment: Segment, key: bytes, weight: int) -> bool:
        """Give an entry of a segment its new weight; whether the access counts as a hit."""
        if weight > self._amount:
            self.forget(key)
            self._leaves(key)
            return False
        grown = weight - segment.entries[key]
        segment.entries[key] = weight
        segment.used += grown
        self._used += grown
        self._shrink(self._amount)
        return True

    def _shrink(self, amount: int) -> None:
        """Entries leave until no more than ``amount`` is used."""
        while self._used > amount:
            self._evict()

    @abstractmethod
    def _evict(self) -> None:
        """Move an entry towards its leaving, or out."""
