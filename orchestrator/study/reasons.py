"""Why the winner won, in sentences made from what was measured."""

from __future__ import annotations

from typing import Any, Final

from orchestrator.config.schema import Config
from orchestrator.core.units import format_size
from orchestrator.report.compare import SATURATED
from orchestrator.report.model import (
    RunView,
    StudyView,
    Summary,
    TrialView,
    Value,
    finite,
    lookup,
    metric,
)
from orchestrator.report.wording import (
    in_use,
    metric_name,
    number,
    percent,
    plain,
    quantity,
    short_names,
)

ACTIVE: Final = 0.95
"""A constraint that is used to this share binds."""
_MEMORY: Final = "system.cache.size"


def why(view: StudyView, config: Config) -> list[str]:
    """Sentences, most important first; empty where there is no best trial."""
    if view.best is None:
        return []
    default = None if view.default is None else view.default.metrics
    sentences = [
        _binding(view.best.metrics, default, view),
        _spread(view),
        _caches(view.best.metrics, default, view),
        _memory(view.best, config),
        *_objectives(view),
        *_neighbours(view),
    ]
    return [sentence for sentence in sentences if sentence]


def _is_default(view: StudyView) -> bool:
    return (
        view.default is not None
        and view.best is not None
        and (view.default.number == view.best.number)
    )


def _bottleneck(summary: Summary | None) -> str:
    resource = lookup(summary, "bottleneck.resource")
    if resource is None:
        return ""
    share = finite(lookup(summary, "bottleneck.utilisation"))
    used = f" ({in_use(share)} in use)" if share is not None else ""
    return f"{plain(resource, 40)}{used}"


def _binding(best: Summary | None, default: Summary | None, view: StudyView) -> str:
    mine, theirs = _bottleneck(best), _bottleneck(default)
    if not mine:
        return ""
    used = metric(best, "bottleneck.utilisation")
    if used is not None and used < SATURATED:
        return f"Its busiest resource is {mine}; none is saturated."
    if _is_default(view) or not theirs:
        return f"What binds it is {mine}."
    if lookup(best, "bottleneck.resource") == lookup(default, "bottleneck.resource"):
        return f"What binds it is {mine}, as it does the default."
    return f"What binds it is {mine}; what binds the default is {theirs}."


def _spread(view: StudyView) -> str:
    """How much of the work the busiest node does: what more nodes are for."""
    mine, theirs = _busiest_share(view.best_run), _busiest_share(view.default_run)
    if mine is None or theirs is None or _is_default(view):
        return ""
    return (
        f"Its busiest node handles {percent(mine)} of the operations, the default's"
        f" {percent(theirs)}."
    )


def _busiest_share(run: RunView | None) -> float | None:
    """Share of all operations; None where nothing was counted."""
    handled: dict[str, int] = {}
    nodes = run.nodes if run is not None else {}
    for node, count in zip(nodes.get("node", ()), nodes.get("operations", ()), strict=False):
        handled[str(node)] = handled.get(str(node), 0) + (count or 0)
    total = sum(handled.values())
    return max(handled.values()) / total if total else None


def _caches(best: Summary | None, default: Summary | None, view: StudyView) -> str:
    mine, theirs = metric(best, "cache.hit_ratio"), metric(default, "cache.hit_ratio")
    if mine is None:
        return ""
    text = f"Its caches answer {percent(mine)} of the accesses"
    if _is_default(view) or theirs is None:
        return text + "."
    missed = (1 - mine) / (1 - theirs) if theirs < 1 else None
    misses = f", {number(missed)} times the misses" if missed is not None else ""
    return f"{text}, the default's {percent(theirs)}{misses}."


def _memory(best: TrialView, config: Config) -> str:
    """How much of ``system.memory`` its caches take."""
    budget = getattr(config.system.params, "memory", None)
    cache = getattr(config.system.params, "cache", None)
    nodes = _number(best.params.get("system.replicas"))
    if nodes is None:
        nodes = getattr(config.system.params, "replicas", None)
    size = _number(best.params.get(_MEMORY))
    if size is None and cache is not None and cache.params.size.in_bytes:
        size = cache.params.size.amount
    in_bytes = cache is not None and cache.params.size.in_bytes
    if not budget or nodes is None or size is None or not in_bytes:
        return ""
    share = nodes * size / budget
    text = (
        f"Its {nodes:.0f} caches of {format_size(round(size))} take {percent(share)} of the"
        f" {format_size(budget)} of system.memory"
    )
    return text + (": another node would shrink every cache." if share >= ACTIVE else ".")


def _number(value: Value | None) -> float | None:
    return None if value is None else value.number


def _objectives(view: StudyView) -> list[str]:
    """How near the best variant comes to each bound of the SLO."""
    sentences = []
    assert view.best is not None
    for path, bound in view.slo.items():
        reached = metric(view.best.metrics, path)
        if not reached or bound <= 0:  # nothing failed: no news
            continue
        name = metric_name(path)
        share = reached / bound
        state = "which limits the search" if share >= ACTIVE else "which leaves room"
        sentences.append(
            f"Its {name.label.lower()} is {quantity(reached, name.unit)}, {percent(share)} of the"
            f" bound of {quantity(bound, name.unit)}, {state}."
        )
    return sentences


def _neighbours(view: StudyView) -> list[str]:
    """What the nearest measured variants below and above lost, axis by axis."""
    sentences = []
    assert view.best is not None
    short = short_names([parameter.path for parameter in view.parameters])
    ranked = sorted(view.parameters, key=lambda item: -view.importance.get(item.path, 0.0))
    for parameter in ranked[:2]:
        here = _number(view.best.params.get(parameter.path))
        if here is None:
            continue
        texts = []
        for side in (-1, 1):
            near = _nearest(view, parameter.path, here, side)
            if near is not None:
                texts.append(_loss(view, near, parameter.path))
        if texts:
            best = view.best.params[parameter.path].text
            sentences.append(f"Around {short[parameter.path]} = {best}: {'; '.join(texts)}.")
    return sentences


def _nearest(view: StudyView, path: str, here: float, side: int) -> TrialView | None:
    """The best measured trial at the next value on one side, feasible ones first."""
    beyond: dict[float, list[TrialView]] = {}
    for trial in view.trials:
        there = _number(trial.params.get(path))
        if there is not None and trial.metrics is not None and (there - here) * side > 0:
            beyond.setdefault(there, []).append(trial)
    if not beyond:
        return None
    nearest = beyond[min(beyond, key=lambda there: abs(there - here))]
    sign = -1.0 if view.maximize else 1.0

    def rank(trial: TrialView) -> tuple[Any, ...]:
        reached = metric(trial.metrics, view.objective_metric)
        return (not trial.feasible, float("inf") if reached is None else sign * reached)

    return min(nearest, key=rank)


def _loss(view: StudyView, trial: TrialView, path: str) -> str:
    """``4 gave 12 % less, bound by node.storage``."""
    assert view.best is not None
    value = trial.params[path].text
    best = metric(view.best.metrics, view.objective_metric)
    reached = metric(trial.metrics, view.objective_metric)
    if not trial.feasible:
        reason = plain(trial.reason.partition("; ")[0], 80)
        return f"the best with {value} is not feasible ({reason})"
    if best is None or reached is None or best == 0:
        return f"{value} has no figure"
    change = reached / best - 1
    bound = _bottleneck(trial.metrics)
    by = f", bound by {bound}" if bound else ""
    more = "more" if change > 0 else "less"
    return f"the best with {value} has {percent(abs(change))} {more}{by}"
