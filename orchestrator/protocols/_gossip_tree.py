"""Cells, the units that gossip spreads, and the Merkle tree over them.

A cell is named by a key and a part of it, and replaced as a whole by one of a higher version;
what keys and parts mean is for the data type to say. Cells fall into buckets by a hash of their
name; the digest of a bucket, and of every subtree above it, is the exclusive or of its cells'
hashes, so that a change touches one digest a level (an incremental set hash in the place of
Merkle's hash of hashes; Bellare and Micciancio, EUROCRYPT 1997).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import ClassVar, Final, TypeVar

import msgspec

from orchestrator.core.machine import ACKNOWLEDGE, REPLICATE
from orchestrator.core.portions import ENTRY_BYTES, portions

BRANCHES_BITS: Final = 4
DEPTH: Final = 3
BRANCHES: Final = 1 << BRANCHES_BITS
BUCKETS: Final = BRANCHES**DEPTH
_DIGESTS_MAX: Final = 1024  # in one message
_CELLS_MAX: Final = 512
_CHECK_MASK: Final = (1 << 32) - 1

_encode = msgspec.msgpack.Encoder().encode

Name = tuple[bytes, bytes]
Item = TypeVar("Item")


class Cell(msgspec.Struct, array_like=True, gc=False):
    """``value`` of ``part`` of ``key``, as of ``version``."""

    key: bytes
    part: bytes
    version: int
    value: bytes


def _cell_bytes(cell: Cell) -> int:
    """What a cell takes in a message, or slightly more."""
    return ENTRY_BYTES + len(cell.key) + len(cell.part) + len(cell.value)


def parted(cells: list[Cell]) -> list[list[Cell]]:
    """The cells in as many messages as they need, one at least."""
    return list(portions(cells, _cell_bytes)) or [cells]


class Digests(msgspec.Struct, array_like=True, tag=1, gc=False):
    """The sender's digests at some places of one level of the tree; level 0 is the root."""

    link: ClassVar[str] = ACKNOWLEDGE
    level: int
    places: list[int]
    digests: list[int]


class Listing(msgspec.Struct, array_like=True, tag=2, gc=False):
    """What the sender has in some buckets: columns of equal length, a cell each.

    ``names`` are hashes of the cells' names, ``checks`` of their contents.
    """

    link: ClassVar[str] = ACKNOWLEDGE
    buckets: list[int]
    names: list[int]
    versions: list[int]
    checks: list[int]


class Cells(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Cells for the receiver; a message and a durable record. ``wanted``: hashes of the names of
    cells that the sender would like. ``rumour``: they are news, to be passed on.
    """

    link: ClassVar[str] = REPLICATE
    cells: list[Cell]
    wanted: list[int]
    rumour: bool = False


def _hash(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


class Stored:
    """A cell with the hashes of its name and of all of it."""

    __slots__ = ("cell", "digest", "name")

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.name = _hash(_encode((cell.key, cell.part)))
        self.digest = _hash(_encode(cell))


class Store:
    """All cells of a node, and the tree over them."""

    def __init__(self) -> None:
        self.cells: dict[Name, Stored] = {}
        self.tree = [[0] * BRANCHES**level for level in range(DEPTH + 1)]
        self._buckets: list[dict[int, Stored]] = [{} for _ in range(BUCKETS)]
        # Names of cells that changed since the last call of take_changed.
        self._changed: dict[Name, None] = {}
        self.changes = 0

    def get(self, key: bytes, part: bytes) -> Cell | None:
        """The cell of that name."""
        found = self.cells.get((key, part))
        return None if found is None else found.cell

    def put(self, cell: Cell) -> None:
        """Put the cell in, or in the place of the one of its name."""
        name = cell.key, cell.part
        stored, before = Stored(cell), self.cells.get(name)
        self.cells[name] = stored
        self._buckets[stored.name % BUCKETS][stored.name] = stored
        change = stored.digest if before is None else stored.digest ^ before.digest
        self._mix(stored.name % BUCKETS, change)
        self._changed[name] = None

    def drop(self, key: bytes, part: bytes) -> None:
        """Take a cell out that others have taken the place of."""
        stored = self.cells.pop((key, part))
        del self._buckets[stored.name % BUCKETS][stored.name]
        self._mix(stored.name % BUCKETS, stored.digest)
        self._changed.pop((key, part), None)

    def _mix(self, bucket: int, change: int) -> None:
        place = bucket
        self.changes += 1
        for digests in reversed(self.tree):
            digests[place] ^= change
            place >>= BRANCHES_BITS

    def take_changed(self) -> list[Cell]:
        """The cells that changed since the last call."""
        changed = [self.cells[name].cell for name in self._changed]
        self._changed.clear()
        return changed

    # --- finding differences --------------------------------------------------------------

    def root(self) -> Digests:
        """What a converged pair exchanges."""
        return Digests(0, [0], list(self.tree[0]))

    def answer(self, message: Digests) -> Iterator[Digests | Listing]:
        """One level further down, wherever the digests differ; at the bottom, what is there."""
        mine = self.tree[message.level]
        pairs = zip(message.places, message.digests, strict=True)
        differing = [place for place, digest in pairs if mine[place] != digest]
        if message.level == DEPTH:
            yield from self._listings(differing)
            return
        below = self.tree[message.level + 1]
        children = [
            place << BRANCHES_BITS | branch for place in differing for branch in range(BRANCHES)
        ]
        for part in _chunks(children, _DIGESTS_MAX):
            yield Digests(message.level + 1, part, [below[place] for place in part])

    def _listings(self, buckets: list[int]) -> Iterator[Listing]:
        """Whole buckets, as many as fit into a message, in each."""
        together: list[int] = []
        cells = 0
        for bucket in buckets:
            together.append(bucket)
            cells += len(self._buckets[bucket])
            if cells >= _CELLS_MAX or len(together) >= _DIGESTS_MAX:
                yield self._listing(together)
                together, cells = [], 0
        if together:
            yield self._listing(together)

    def _listing(self, buckets: list[int]) -> Listing:
        found = [stored for bucket in buckets for stored in self._buckets[bucket].values()]
        return Listing(
            buckets,
            [stored.name for stored in found],
            [stored.cell.version for stored in found],
            [stored.digest & _CHECK_MASK for stored in found],
        )

    def compare(self, message: Listing) -> Iterator[Cells]:
        """What the other lacks, and what it should send."""
        theirs = {
            name: (version, check)
            for name, version, check in zip(
                message.names, message.versions, message.checks, strict=True
            )
        }
        sending: list[Cell] = []
        for bucket in message.buckets:
            for name, stored in self._buckets[bucket].items():
                mine = stored.cell.version, stored.digest & _CHECK_MASK
                other = theirs.get(name)
                if other == mine:
                    del theirs[name]
                    continue
                if other is None or mine[0] >= other[0]:
                    sending.append(stored.cell)
                if other is not None and mine[0] > other[0]:
                    del theirs[name]
        wanted = list(theirs)
        chunks = _chunks(sending, _CELLS_MAX) or [[]]
        for part in [part for chunk in chunks for part in parted(chunk)]:
            asked, wanted = wanted[:_CELLS_MAX], wanted[_CELLS_MAX:]
            if part or asked:
                yield Cells(part, asked)
        for asked in _chunks(wanted, _CELLS_MAX):
            yield Cells([], asked)

    def named(self, names: Iterable[int]) -> list[Cell]:
        """The cells whose names have these hashes, as far as they are still there."""
        found = (self._buckets[name % BUCKETS].get(name) for name in names)
        return [stored.cell for stored in found if stored is not None]

    def check(self) -> None:
        """Assert that the tree is that of the cells."""
        digests: dict[int, int] = {}
        everything = 0
        for name, stored in self.cells.items():
            assert (stored.cell.key, stored.cell.part) == name
            bucket = stored.name % BUCKETS
            assert self._buckets[bucket][stored.name] is stored
            digests[bucket] = digests.get(bucket, 0) ^ stored.digest
            everything ^= stored.digest
        for bucket, digest in digests.items():
            assert self.tree[DEPTH][bucket] == digest, "a bucket's digest is that of its cells"
        assert self.tree[0] == [everything]


def _chunks(items: list[Item], most: int) -> list[list[Item]]:
    return [items[start : start + most] for start in range(0, len(items), most)]
