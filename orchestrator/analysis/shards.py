"""How the load falls on shards, and which are hot.

A shard is **hot** that takes at least half as much again as its fair share of the operations, and
more than chance explains: if each operation fell on the shard with the probability of its share,
as many as that would be seen less than once in a thousand runs, in any of the shards (a binomial
law, with Bonferroni's correction for their number). The fair share is what the sharding means the
shard to have by its weight, so a ring with few virtual nodes has hot shards, too.

Where data moves, an operation falls on the shard that had its key when it was intended to start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy
from numpy.typing import NDArray
from scipy.special import bdtrc

from orchestrator.analysis.latency import Window, ms, quantile_ns
from orchestrator.analysis.moves import Portion, layouts_of, portions
from orchestrator.analysis.resources import evenness
from orchestrator.config.schema import Config
from orchestrator.core.layout import Layouts
from orchestrator.core.machine import TRANSACTION

HOT_FACTOR: Final = 1.5
"""Times its fair share that a hot shard takes at least."""
FALSE_SHARE: Final = 0.001


def shard_figures(windows: Sequence[Window], config: Config) -> dict[str, Any] | None:
    """The measured windows by shard; None where there is one, or operations have several keys."""
    layouts = layouts_of(config)
    if layouts is None or any((window.kind == TRANSACTION).any() for window in windows):
        return None
    shards = sorted({group.shard for group in layouts.groups})
    index = {shard: at for at, shard in enumerate(shards)}
    counts, due = numpy.zeros(len(shards)), numpy.zeros(len(shards))
    latencies: list[list[NDArray[numpy.int64]]] = [[] for _ in shards]
    for window in windows:
        moved = portions(window.record)
        fell_on = _shard_of_each(window, layouts, moved, index)
        counts += numpy.bincount(fell_on, minlength=len(shards))
        due += _due(window, layouts, moved, shards)
        for at in range(len(shards)):
            latencies[at].append(window.latency_ns[fell_on == at])
    total = float(counts.sum())
    if not total:
        return None
    by_shard: list[dict[str, Any]] = []
    for at, shard in enumerate(shards):
        fair = float(due[at]) / total
        together = numpy.concatenate(latencies[at])
        by_shard.append(
            {
                "shard": shard,
                "operations": int(counts[at]),
                "share": float(counts[at]) / total,
                "fair_share": fair,
                "p50_ms": ms(quantile_ns(together, 500)),
                "p99_ms": ms(quantile_ns(together, 990)),
                "hot": is_hot(int(counts[at]), int(total), fair, len(shards)),
            }
        )
    return {
        "by_shard": by_shard,
        "hot": [each["shard"] for each in by_shard if each["hot"]],
        "max_over_fair": max(
            (each["share"] / each["fair_share"] for each in by_shard if each["fair_share"] > 0),
            default=None,
        ),
        "jain": evenness(counts.tolist())["jain"],
    }


def is_hot(count: int, total: int, fair: float, shards: int) -> bool:
    """Whether so many of all operations are far more than the fair share of one of the shards."""
    if not 0 < fair < 1 or count < HOT_FACTOR * fair * total:
        return False
    # The probability of at least so many.
    return bool(bdtrc(count - 1, total, fair) < FALSE_SHARE / shards)


def _shard_of_each(
    window: Window, layouts: Layouts, moved: Sequence[Portion], index: dict[int, int]
) -> NDArray[numpy.int64]:
    """The place of its shard for each operation of a window."""
    names = window.record.history.key_names
    keys, inverse = numpy.unique(window.key, return_inverse=True)
    cells = [layouts.cell_of(names[key]) for key in keys.tolist()]
    first = [index[layouts.groups[layouts.path(cell)[0]].shard] for cell in cells]
    found = numpy.array(first, dtype=numpy.int64)[inverse]
    if moved:
        cell_of_each = numpy.array(cells, dtype=numpy.int64)[inverse]
        for portion in sorted(moved, key=lambda portion: portion.epoch):
            since_ns = portion.fenced_ns
            rows = (cell_of_each == portion.cell) & (window.intended_ns >= since_ns)
            found[rows] = index[layouts.groups[portion.target].shard]
    return found


def _due(
    window: Window, layouts: Layouts, moved: Sequence[Portion], shards: Sequence[int]
) -> NDArray[numpy.float64]:
    """How many operations each shard would have had by its share, epoch by epoch."""
    starts_ns = [window.start_ns]
    for number in range(1, len(layouts.epochs)):
        ends = [portion.moved_ns for portion in moved if portion.epoch == number]
        done = [end for end in ends if end is not None]
        over = bool(done) and len(done) == len(ends)
        starts_ns.append(max(window.start_ns, *done) if over else window.end_ns)
    # An epoch that is over before the one before it has no time of its own.
    edges_ns = numpy.minimum.accumulate([*starts_ns, window.end_ns][::-1])[::-1]
    counts = numpy.diff(numpy.searchsorted(window.intended_ns, edges_ns)).tolist()
    due = numpy.zeros(len(shards))
    for epoch, count in zip(layouts.epochs, counts, strict=True):
        for at, shard in enumerate(shards):
            if shard in epoch.group_of:
                due[at] += epoch.map.share(shard) * count
    return due
