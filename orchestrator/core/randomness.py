"""Named streams of one root seed.

Every random draw belongs to a stream with a name (``node/2/election``), so adding a draw in
one place never shifts the draws of another, and the same seed gives the same run in every
process and under every ``PYTHONHASHSEED``.
"""

from __future__ import annotations

import hashlib
import random

import numpy


def derived_seed(seed: int, name: str) -> int:
    """A seed of its own for a part that has named streams itself; 128 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "big")


def scalar_stream(seed: int, name: str) -> random.Random:
    """A stream for single draws, cheap to call one by one."""
    return random.Random(f"{seed}/{name}")


def block_stream(seed: int, name: str) -> numpy.random.Generator:
    """A stream for numpy blocks."""
    return numpy.random.Generator(numpy.random.PCG64(derived_seed(seed, name)))
