"""Which operations of a run are worth keeping where not all of them are."""

from __future__ import annotations

from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.history import History

SAMPLE_OPERATIONS: Final = 10_000
"""About as many operations are kept by ``record.operations: sample``."""


def sampled_rows(history: History, limit: int = SAMPLE_OPERATIONS) -> NDArray[numpy.bool_]:
    """Mask of all operations of some keys, at most ``limit`` rows together.

    Keys are taken in the order of a hash of their index, so the same keys are chosen in every
    run of a workload; one that does not fit any more is passed over. Where not one key fits,
    the key with the fewest operations is kept whole.
    """
    if len(history) <= limit:
        return numpy.ones(len(history), dtype=numpy.bool_)
    keys, inverse, counts = numpy.unique(history.key, return_inverse=True, return_counts=True)
    order = numpy.argsort(_scattered(keys), kind="stable")
    chosen = numpy.zeros(len(keys), dtype=numpy.bool_)
    room = limit
    for position, count in zip(order.tolist(), counts[order].tolist(), strict=True):
        if count <= room:
            chosen[position] = True
            room -= count
            if room == 0:
                break
    if not chosen.any():
        chosen[int(counts.argmin())] = True
    rows: NDArray[numpy.bool_] = chosen[inverse]
    return rows


def _scattered(keys: NDArray[numpy.int64]) -> NDArray[numpy.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014) of each key."""
    mixed = keys.astype(numpy.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> numpy.uint64(shift))) * numpy.uint64(factor)
    result: NDArray[numpy.uint64] = mixed ^ (mixed >> numpy.uint64(31))
    return result
