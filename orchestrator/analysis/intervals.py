"""95 % intervals for figures of one run (blocks of it) and of several (repeats).

Operations of one run are correlated, so their own variance says little; means of long blocks
are nearly independent (Law, "Simulation Modeling and Analysis", section 9.5.3), and 10 to 30 of
them are enough (Schmeiser, Operations Research 30(3), 1982). Throughput is a mean over blocks of
time, and its interval Student's.

A quantile of a block is biased the more the shorter the block is, so quantiles have a **block
bootstrap** (Kuensch, Annals of Statistics 17(3), 1989): blocks are drawn anew with replacement, and
the quantile of all that were drawn is looked at, again and again. What it strays by is taken of its
logarithm, because far quantiles of latency stray farther up than down, and is widened by Student's
factor for so few blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy
from numpy.typing import NDArray
from scipy.special import stdtrit

from orchestrator.core.randomness import block_stream
from orchestrator.core.units import NS_PER_S

CONFIDENCE: Final = 0.95
BLOCKS: Final = 20
BLOCKS_MIN: Final = 10
COMPLETIONS_PER_BLOCK_MIN: Final = 10
"""Fewer completions make a block's count too coarse to be taken for normal."""
QUANTILE_BLOCKS: Final = 10
BEYOND_MIN: Final = 2
_RESAMPLES: Final = 1000
_GRID: Final = 129
_FINE: Final = 400
"""Levels at which the blocks are looked at: all over, and near the quantile."""

Interval = tuple[float, float]


def student_interval(estimates: Sequence[float], centre: float | None = None) -> Interval | None:
    """Student t interval of independent estimates; None for fewer than two.

    Around ``centre`` (default: their mean) with the estimates' scatter around it.
    """
    count = len(estimates)
    if count < 2:
        return None
    middle = math.fsum(estimates) / count if centre is None else centre
    variance = math.fsum((estimate - middle) ** 2 for estimate in estimates) / (count - 1)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * math.sqrt(variance / count)
    return max(0.0, middle - half), middle + half


def throughput_interval_ops(
    returned_ns: NDArray[numpy.int64], start_ns: int, end_ns: int
) -> Interval | None:
    """Interval of completions per second from their times within [start_ns, end_ns).

    None with fewer than 100 completions.
    """
    blocks = min(BLOCKS, len(returned_ns) // COMPLETIONS_PER_BLOCK_MIN)
    if blocks < BLOCKS_MIN or end_ns <= start_ns:
        return None
    counts = numpy.bincount(
        (returned_ns - start_ns) * blocks // (end_ns - start_ns), minlength=blocks
    )
    block_s = (end_ns - start_ns) / NS_PER_S / blocks
    return student_interval((counts / block_s).tolist())


def quantile_intervals_ns(
    latency_ns: NDArray[numpy.int64], quantiles: Mapping[str, int]
) -> dict[str, Interval | None]:
    """Intervals of quantiles by their names, given in thousandths, of latencies in order of time.

    None where a block has fewer than two operations beyond the quantile, where they are fewer.
    """
    blocks = QUANTILE_BLOCKS
    length = len(latency_ns) // blocks
    rows = numpy.sort(latency_ns[: length * blocks].reshape(blocks, length), axis=1)
    ordered = numpy.sort(latency_ns)
    chance = block_stream(1, "bootstrap")
    times_drawn = chance.multinomial(blocks, numpy.full(blocks, 1 / blocks), size=_RESAMPLES)
    found: dict[str, Interval | None] = {}
    for name, per_mille in quantiles.items():
        share = per_mille / 1000
        known = length * min(share, 1 - share) >= BEYOND_MIN
        found[name] = _bootstrapped(rows, ordered, share, times_drawn) if known else None
    return found


def _bootstrapped(
    rows: NDArray[numpy.int64],
    ordered: NDArray[numpy.int64],
    share: float,
    times_drawn: NDArray[numpy.int64],
) -> Interval:
    """Of one quantile; ``rows`` are the blocks, each in ascending order."""
    blocks, length = rows.shape
    # All over, closely near the quantile, and of far quantiles closer towards the end.
    beyond = min(share, 1 - share)
    near = share + beyond * numpy.linspace(-1, 1, _FINE)
    far = 1 - (1 - share) * numpy.geomspace(8, 1 / 20, _FINE)
    levels = numpy.concatenate([numpy.linspace(0, 1, _GRID), near, far])
    values = numpy.unique(ordered[_places(levels, len(ordered))])
    # Of each block, how many are up to each of these values; the last one is the maximum.
    at_most = numpy.stack([numpy.searchsorted(row, values, side="right") for row in rows])
    places = (times_drawn @ at_most >= share * blocks * length).argmax(axis=1)
    found = numpy.log(numpy.maximum(values[places], 1))
    scatter = float(found.std(ddof=1)) * math.sqrt(blocks / (blocks - 1))
    half = float(stdtrit(blocks - 1, (1 + CONFIDENCE) / 2)) * scatter
    centre = max(1.0, float(ordered[_places(numpy.array([share]), len(ordered))[0]]))
    return centre * math.exp(-half), centre * math.exp(half)


def _places(levels: NDArray[numpy.float64], count: int) -> NDArray[numpy.int64]:
    """The places of quantiles among so many in ascending order."""
    found: NDArray[numpy.int64] = numpy.ceil(levels * count - 1e-9).astype(numpy.int64) - 1
    return found.clip(0, count - 1)


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of what is there; None where nothing is."""
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None
