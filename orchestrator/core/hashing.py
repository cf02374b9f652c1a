"""Hashes that are alike in every process, and spread as if they were random.

BLAKE2b costs about 1 us for a short key. CRC-32 is quicker and too weak here: it is linear, so
names that differ in a digit land in patterns.
"""

from __future__ import annotations

import hashlib
from typing import Final

_WORD_BYTES: Final = 8
WORD_BITS: Final = 8 * _WORD_BYTES
_WORDS: Final = hashlib.blake2b.MAX_DIGEST_SIZE // _WORD_BYTES


def hashed(key: bytes) -> int:
    """64 bits."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=_WORD_BYTES).digest(), "little")


def points(node: int, count: int) -> list[int]:
    """``count`` words of 64 bits that belong to a node; the first ones of any greater count."""
    found: list[int] = []
    for block in range(-(-count // _WORDS)):
        digest = hashlib.blake2b(b"%d/%d" % (node, block)).digest()
        words = range(0, len(digest), _WORD_BYTES)
        found += (int.from_bytes(digest[at : at + _WORD_BYTES], "little") for at in words)
    return found[:count]
