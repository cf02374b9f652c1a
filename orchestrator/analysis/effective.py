"""How many independent operations a percentile rests on, and whether they are enough to give it.

Operations that follow each other wait for the same queue, so what lies beyond a percentile comes in
clusters: one stall of 50 ms puts fifty operations there, and is one event. What decides how far a
percentile may be off is the variance of the share of operations beyond it (Bahadur, Annals of
Mathematical Statistics 37(3), 1966: to first order nothing else of the latencies matters). Were n
operations independent, it would be p (1 - p) / n; it is larger by the **dispersion** d, and n / d
is the number of independent operations that would be off as far.

The variance is estimated by **overlapping batch means** of the indicator "is beyond" (Meketon and
Schmeiser, "Overlapping batch means: something for nothing?", WSC 1984), in batches of a twentieth
of the run: 1.5 times the degrees of freedom of the same batches laid end to end. The extremal index
(Ferro and Segers, "Inference for clusters of extreme values", JRSS B 65(2), 2003) is the limit of
1 / d for ever farther percentiles; it says the same of the p99.9 and is not defined for the p50,
where queues have the longest memory. Clusters longer than a batch are not seen whole: of a run that
is shorter than twenty of its excursions the number is too high.

A percentile is **given** where two things hold. There must be an upper bound for it that holds with
95 % whatever the distribution is, the largest latency seen (Wilks, Annals of Mathematical
Statistics 12(1), 1941): p^n <= 0.05. That takes 5 operations for the p50, 29 for the p90, 299 for
the p99 and 2,995 for the p99.9: about three beyond it. And they must not all be one event: it is
withheld where fewer than two independent operations lie beyond it. That number is an estimate of 28
degrees of freedom, so it is held against a percentile only from where two can be ruled out at
97.5 %. An **interval** wants as many independent operations beyond as there must be operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy
from numpy.typing import NDArray

BATCHES: Final = 20
NONE_BEYOND_MAX: Final = 0.05
"""Chance that no operation lies beyond the percentile."""
INTERVAL_MIN: Final = -math.log(NONE_BEYOND_MAX)
"""About how many lie beyond it then: 3.0."""
EVENTS_MIN: Final = 2.0
EVENTS_RULED_OUT: Final = 1.25
"""2 over 1.59, the upper 2.5 % point of chi-square with 28 degrees of freedom over them."""


def enough(count: float, thousandths: int) -> bool:
    """Whether so many operations, were they independent, give the quantile."""
    share = max(thousandths, 1000 - thousandths) / 1000
    return count > 0 and count * math.log(share) <= math.log(NONE_BEYOND_MAX)


def withheld(count: int, thousandths: int, effective: float | None = None) -> str | None:
    """Why a quantile of so many operations is not given, in words; None where it is.

    ``effective``: independent operations beyond it, where that is known.
    """
    if not enough(count, thousandths):
        return (
            f"of {count} operations {count * (1000 - thousandths) / 1000:.1f} lie beyond it where "
            f"{INTERVAL_MIN:.1f} are needed"
        )
    if effective is not None and effective < EVENTS_RULED_OUT:
        return (
            f"what lies beyond it is as good as {effective:.1f} independent operations where "
            f"{EVENTS_MIN:g} are needed"
        )
    return None


def effective_beyond(
    latency_ns: NDArray[numpy.int64], quantiles: Mapping[str, int]
) -> dict[str, float]:
    """How many independent operations lie beyond each quantile, by its name.

    ``latency_ns``, shape (n,), in order of time; quantiles in thousandths. At most those of n.
    """
    found = dict.fromkeys(quantiles, 0.0)
    ordered = numpy.sort(latency_ns)
    for name, thousandths in quantiles.items() if len(ordered) else ():
        level = ordered[max(1, -(-len(ordered) * thousandths // 1000)) - 1]
        independent = len(ordered) / max(1.0, _dispersion(_beyond(latency_ns, level)))
        found[name] = independent * (1000 - thousandths) / 1000
    return found


def _beyond(latency_ns: NDArray[numpy.int64], level: numpy.int64) -> NDArray[numpy.bool_]:
    beyond = latency_ns > level
    # Where latencies take few values, the quantile may be the longest of them.
    return beyond if beyond.any() else latency_ns >= level


def _dispersion(beyond: NDArray[numpy.bool_]) -> float:
    """Variance of the share that is beyond, over that of independent operations."""
    count = len(beyond)
    length = count // BATCHES
    share = float(beyond.mean())
    if length < 2 or not 0 < share < 1:
        return 1.0
    reached = numpy.concatenate([[0], numpy.cumsum(beyond)])
    batches = (reached[length:] - reached[:-length]) / length
    scatter = float(((batches - share) ** 2).mean())
    # Of one batch; the factor makes it free of bias for independent operations.
    return scatter * length * count / (count - length) / (share * (1 - share))
