"""Percentiles that the objective names must have enough operations beyond them to be given at all
(:mod:`orchestrator.analysis.effective`): an objective that nobody can judge was not measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy

from orchestrator.analysis.latency import Window
from orchestrator.analysis.slo import not_given
from orchestrator.config.schema import SLO_KINDS, Config, LatencyBounds
from orchestrator.core.machine import KIND_NAMES
from orchestrator.workloads.tenants import tenants_of

NAMED: Final = "the objective names"
"""How each sentence begins."""

_Group = tuple[str, LatencyBounds, int, Mapping[str, float] | None]


def not_given_words(metric: str, reason: str) -> str:
    """The sentence of one percentile."""
    return f"{NAMED} {metric}, which cannot be given: {reason}"


def sample_reasons(window: Window, config: Config) -> list[str]:
    """One sentence a percentile; none about operations of which there were none."""
    return [
        not_given_words(prefix + name, reason)
        for prefix, bounds, count, effective in _groups(window, config)
        for name, reason in not_given(bounds, count, effective).items()
    ]


def _groups(window: Window, config: Config) -> Iterator[_Group]:
    """What has bounds: its path below ``slo``, the bounds, and how many operations it had."""
    slo = config.slo
    yield "", slo, len(window), window.effective_beyond
    for kind in SLO_KINDS:
        code = KIND_NAMES.index(kind)
        yield f"{kind}.", getattr(slo, kind), int((window.kind == code).sum()), None
    names = tenants_of(config.workload)
    counts = numpy.bincount(window.key % max(1, len(names)), minlength=len(names)).tolist()
    for name, count in zip(names, counts, strict=False):
        if name in slo.tenants:
            yield f"tenants.{name}.", slo.tenants[name], count, None
