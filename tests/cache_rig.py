"""Caches under test: made by name, fed with steps, and streams of keys to feed them with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.core.load import CachePolicy
from orchestrator.core.parameters import parse_capacity
from orchestrator.core.randomness import block_stream
from orchestrator.core.registry import Family, plugin, plugins

CACHES = list(plugins(Family.CACHE))
SHAPES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in CACHES),
    ("clock", {"bits": 8}),
    ("lirs", {"hir": 0.0}),
    ("lirs", {"hir": 0.5}),
    ("lirs", {"hir": 1.0}),
    ("s3fifo", {"small": 0.0, "ghosts": 0.0, "threshold": 1}),
    ("s3fifo", {"small": 1.0, "ghosts": 10.0, "threshold": 3}),
    ("two_q", {"kin": 0.0, "kout": 0.0}),
    ("two_q", {"kin": 1.0}),
    ("w_tinylfu", {"counts": "all", "segments": 1, "window": 0.5}),
    ("w_tinylfu", {"segments": 16, "window": 1.0, "width": 1, "sample": 1}),
]
"""Every policy with its defaults, and with parameters at their ends."""
FORGET = -1  # stands for the size of a step that forgets its key

checked = settings(max_examples=100, derandomize=True, deadline=None)


def make(name: str, size: object, **params: Any) -> CachePolicy:
    """A policy of ``size`` entries, or bytes with a unit."""
    chosen = plugin(Family.CACHE, name)
    made = chosen.params(size=parse_capacity(size), **params)
    cache: CachePolicy = chosen.implementation(made)
    return cache


def name_of(key: int) -> bytes:
    """The key as caches know it."""
    return b"user%d" % key


def feed(cache: CachePolicy, steps: Sequence[tuple[int, int]]) -> list[bool]:
    """Steps are (key, size), or (key, FORGET), which counts as no hit."""
    hits = []
    for at, (key, size) in enumerate(steps):
        if size == FORGET:
            cache.forget(name_of(key))
            hits.append(False)
        else:
            hits.append(cache.access(name_of(key), size, at))
    return hits


def residents(cache: CachePolicy, steps: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Key -> size of what is in the cache after ``steps``."""
    last = {key: size for key, size in steps if size != FORGET}
    return {key: size for key, size in last.items() if name_of(key) in cache}


def steps_of(size_max: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Up to 80 steps on a dozen keys."""
    step = st.tuples(st.integers(0, 11), st.integers(0, size_max) | st.just(FORGET))
    return st.lists(step, max_size=80)


def zipf(keys: int, alpha: float) -> NDArray[numpy.float64]:
    """The probability of each key."""
    weights = numpy.arange(1, keys + 1, dtype=numpy.float64) ** -alpha
    shares: NDArray[numpy.float64] = weights / weights.sum()
    return shares


def _scans(chance: numpy.random.Generator, count: int) -> list[int]:
    """Skewed accesses, broken by scans of keys of which most come once."""
    keys: list[int] = []
    while len(keys) < count:
        keys += chance.choice(2000, 200, p=zipf(2000, 1.0)).tolist()
        first = int(chance.integers(5000, 10_000))
        keys += range(first, first + int(chance.integers(1, 300)))
    return keys[:count]


def streams(seed: int, count: int = 20_000) -> Iterator[tuple[str, list[int]]]:
    """Keys of several kinds of access, by name."""
    chance = block_stream(seed, "stream")
    yield "zipf 0.9", chance.choice(2000, count, p=zipf(2000, 0.9)).tolist()
    yield "zipf 1.2", chance.choice(2000, count, p=zipf(2000, 1.2)).tolist()
    yield "uniform", chance.integers(0, 500, count).tolist()
    yield "loop", [at % 300 for at in range(count)]
    yield "scans", _scans(chance, count)
