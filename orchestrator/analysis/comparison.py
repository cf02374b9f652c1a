"""Two variants side by side: by how much each figure differs, and whether that means anything.

A figure's effect is the ratio of candidate over base. Of **pairs** (runs of both with the same
seed, one after the other) the logarithms of the ratios are looked at, with Student's interval: what
a machine or a seed does to both cancels out. **Groups** of runs that were not paired have Welch's.

Many figures are looked at at once, so p-values are corrected by Holm's method (Scandinavian Journal
of Statistics 6(2), 1979), which keeps the chance that any of them is called different by mistake
below the level. A difference below the practical threshold is none, however sure it is; ``same`` is
said only where the interval lies within the threshold (two one-sided tests, Schuirmann, J.
Pharmacokinetics and Biopharmaceutics 15(6), 1987).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from scipy.special import stdtr, stdtrit

BETTER: Final = "better"
WORSE: Final = "worse"
SAME: Final = "same"
INCONCLUSIVE: Final = "inconclusive"

LEVEL: Final = 0.05
THRESHOLD: Final = 0.02
"""Practical: a smaller difference nobody acts upon."""


@dataclass(frozen=True)
class Effect:
    """One figure of both. ``p``: of no difference, corrected; ``interval``: 95 % of the ratio. Both
    are None where there are too few runs, or a figure is 0.
    """

    base: float
    candidate: float
    ratio: float | None
    interval: tuple[float, float] | None
    p: float | None
    verdict: str = INCONCLUSIVE


def of_pairs(base: Sequence[float], candidate: Sequence[float]) -> Effect:
    """``base[i]`` and ``candidate[i]`` were measured as a pair."""
    ones, others = _logs(base), _logs(candidate)
    if ones is None or others is None:
        return _without_ratio(base, candidate)
    differences = [other - one for one, other in zip(ones, others, strict=True)]
    count, middle = len(differences), _mean(differences)
    scatter = None
    if count > 1:
        scatter = math.sqrt(_squares(differences) / (count - 1) / count)
    return _effect(base, candidate, middle, scatter, count - 1)


def of_groups(base: Sequence[float], candidate: Sequence[float]) -> Effect:
    """Runs of one and of the other that have nothing to do with each other."""
    ones, others = _logs(base), _logs(candidate)
    if ones is None or others is None:
        return _without_ratio(base, candidate)
    middle = _mean(others) - _mean(ones)
    if min(len(ones), len(others)) < 2:
        return _effect(base, candidate, middle, None, 0)
    parts = [_squares(each) / (len(each) - 1) / len(each) for each in (ones, others)]
    total = math.fsum(parts)
    # Welch and Satterthwaite.
    below = parts[0] ** 2 / (len(ones) - 1) + parts[1] ** 2 / (len(others) - 1)
    freedom = total**2 / below if below else len(base) + len(candidate) - 2
    return _effect(base, candidate, middle, math.sqrt(total), freedom)


def of_intervals(
    base: float,
    base_interval: tuple[float, float],
    candidate: float,
    candidate_interval: tuple[float, float],
) -> Effect:
    """Two runs, each with the 95 % interval of its figure; taken for normal in the logarithm."""
    ends = (*base_interval, *candidate_interval)
    if min(base, candidate, *ends) <= 0:
        return _without_ratio([base], [candidate])
    widths = [math.log(high / low) for low, high in (base_interval, candidate_interval)]
    scatter = math.hypot(*widths) / 2 / float(stdtrit(math.inf, 0.975))
    return _effect([base], [candidate], math.log(candidate / base), scatter, math.inf)


def _logs(values: Sequence[float]) -> list[float] | None:
    if not values or any(value <= 0 for value in values):
        return None
    return [math.log(value) for value in values]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _squares(values: Sequence[float]) -> float:
    middle = _mean(values)
    return math.fsum((value - middle) ** 2 for value in values)


def _without_ratio(base: Sequence[float], candidate: Sequence[float]) -> Effect:
    """A figure of 0 has no ratio; where all are the same there is nothing to tell."""
    alike = {*base} == {*candidate} and len({*base}) == 1
    means = _mean(base), _mean(candidate)
    return Effect(*means, None, None, 1.0 if alike else None, SAME if alike else INCONCLUSIVE)


def _effect(
    base: Sequence[float],
    candidate: Sequence[float],
    middle: float,
    scatter: float | None,
    freedom: float,
) -> Effect:
    means, ratio = (_mean(base), _mean(candidate)), math.exp(middle)
    if scatter is None:
        return Effect(*means, ratio, None, None)
    # What differs by rounding alone does not differ.
    if scatter <= 1e-12 * max(1.0, abs(middle)):
        p = 1.0 if abs(middle) <= 1e-12 else 0.0
        return Effect(*means, ratio, (ratio, ratio), p)
    half = float(stdtrit(freedom, 0.975)) * scatter
    p = 2 * float(stdtr(freedom, -abs(middle) / scatter))
    return Effect(*means, ratio, (math.exp(middle - half), math.exp(middle + half)), p)


def judged(
    effects: Mapping[str, Effect],
    higher_is_better: Mapping[str, bool],
    *,
    threshold: float = THRESHOLD,
    level: float = LEVEL,
) -> dict[str, Effect]:
    """The effects with corrected p-values and verdicts."""
    corrected = _holm({name: each.p for name, each in effects.items() if each.p is not None})
    return {
        name: replace(
            each,
            p=corrected.get(name),
            verdict=_verdict(
                each, corrected.get(name), higher_is_better[name], threshold=threshold, level=level
            ),
        )
        for name, each in effects.items()
    }


def _holm(p_values: Mapping[str, float]) -> dict[str, float]:
    corrected, so_far = {}, 0.0
    ordered = sorted(p_values, key=lambda name: (p_values[name], name))
    for rank, name in enumerate(ordered):
        so_far = max(so_far, min(1.0, (len(ordered) - rank) * p_values[name]))
        corrected[name] = so_far
    return corrected


def _verdict(
    effect: Effect, p: float | None, higher_is_better: bool, *, threshold: float, level: float
) -> str:
    if effect.ratio is None or effect.interval is None or p is None:
        return effect.verdict
    low, high = effect.interval
    if 1 / (1 + threshold) <= low and high <= 1 + threshold:
        return SAME
    far = max(effect.ratio, 1 / effect.ratio) > 1 + threshold
    if p <= level and far:
        return BETTER if (effect.ratio > 1) == higher_is_better else WORSE
    return INCONCLUSIVE


def together(verdicts: Sequence[str]) -> str:
    """One word for all: what is worse anywhere is worse."""
    if WORSE in verdicts:
        return WORSE
    if BETTER in verdicts:
        return BETTER
    return SAME if verdicts and all(each == SAME for each in verdicts) else INCONCLUSIVE
