"""A session's causal past, as the bytes that travel with it.

A version is ``time << 10 | node``. The writes of one node are applied in its order everywhere,
so the newest version of each node that a session depends on stands for all older ones of that
node: a past of a cluster of n nodes is at most n versions that the session wrote and n that it
read. They are kept apart because reads that ask for one session guarantee only need one part
(the write-set and the read-set of Terry et al., "Session Guarantees for Weakly Consistent
Replicated Data", PDIS 1994).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from orchestrator.core import levels
from orchestrator.core.levels import CODES

NODE_BITS: Final = 10
NODE_MASK: Final = (1 << NODE_BITS) - 1
_HEADER: Final = struct.Struct("<H")
_HEADER_BYTES: Final = _HEADER.size
_VERSION_BYTES: Final = 8
_EMPTY: Final = _HEADER.pack(0)

# What a read waits for: (what its session wrote, what it read).
BOTH: Final = (True, True)
NEITHER: Final = (False, False)

Versions = tuple[int, ...]


def packed(versions: Sequence[int]) -> bytes:
    """Versions as the bytes of one part."""
    return struct.pack(f"<{len(versions)}q", *versions)


def past(written: Sequence[int], read: Sequence[int]) -> bytes:
    """The context of a session that depends on these versions."""
    return _HEADER.pack(len(written)) + packed(written) + packed(read)


def versions_of(context: bytes) -> Versions:
    """Everything that a context names; struct.error where it is malformed."""
    if not context:
        return ()
    return struct.unpack_from(f"<{len(context) // _VERSION_BYTES}q", context, _HEADER_BYTES)


def parts_of(context: bytes) -> tuple[Versions, Versions]:
    """What the session wrote, and what it read; struct.error where it is malformed."""
    if not context:
        return (), ()
    versions = versions_of(context)
    written = int.from_bytes(context[:_HEADER_BYTES], "little")
    return versions[:written], versions[written:]


def with_read_part(context: bytes, part: bytes) -> bytes:
    """The context with another read part."""
    if not context:
        return _EMPTY + part
    written = int.from_bytes(context[:_HEADER_BYTES], "little")
    return context[: _HEADER_BYTES + written * _VERSION_BYTES] + part


def well_formed(context: bytes) -> bool:
    """Whether it can be taken apart."""
    words, rest = divmod(len(context) - _HEADER_BYTES, _VERSION_BYTES)
    return not context or (rest == 0 and int.from_bytes(context[:_HEADER_BYTES], "little") <= words)


def newest(versions: Iterable[int], more: Iterable[int]) -> list[int]:
    """The newest version of each node among both."""
    found: dict[int, int] = {}
    for version in (*versions, *more):
        node = version & NODE_MASK
        if version > found.get(node, 0):
            found[node] = version
    return list(found.values())


def waits_of(*, nearest: bool) -> dict[int, tuple[bool, bool]]:
    """By code of the level: which parts of its session's past a read waits for.

    ``nearest``: only the nearest dependencies are kept.
    """
    waits = dict.fromkeys(CODES.values(), BOTH)
    # Guarantees that bind a session's writes, and no guarantee, let reads go at once.
    for level in (
        levels.NONE,
        levels.EVENTUAL,
        levels.MONOTONIC_WRITES,
        levels.WRITES_FOLLOW_READS,
    ):
        waits[CODES[level]] = NEITHER
    waits[CODES[levels.READ_YOUR_WRITES]] = (True, False)
    # With nearest dependencies, a write stands for what was read before it.
    waits[CODES[levels.MONOTONIC_READS]] = (nearest, True)
    return waits
