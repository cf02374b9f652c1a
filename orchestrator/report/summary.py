"""The answer in words: what a reader should know before any figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.report.compare import (
    BETTER,
    UNCLAIMED,
    UNCLEAR,
    Comparison,
    bottleneck,
    compare,
    consistency,
    hot_shards,
    lost_writes,
    moves,
    overload,
    recovery,
    role_of_bottleneck,
    slo_word,
)
from orchestrator.report.model import (
    FEASIBLE,
    OUTCOMES,
    RunView,
    StudyView,
    Summary,
    TrialView,
    interval,
    lookup,
    metric,
    simulated,
    summary_of,
)
from orchestrator.report.wording import (
    NONE,
    counted,
    in_use,
    joined,
    metric_name,
    number,
    percent,
    plain,
    quantity,
    short_names,
    span,
    times,
)

GOOD = "good"
WARN = "warn"


@dataclass(frozen=True)
class Tile:
    """One key figure: its name, its value, a line below, and GOOD, WARN or "" as its tone."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Words:
    """Headline, sentences (most important first) and tiles."""

    headline: str
    sentences: Sequence[str]
    tiles: Sequence[Tile]


def study_words(view: StudyView) -> Words:
    """The summary of a study."""
    if view.best is None:
        return _without_best(view)
    same = view.default is not None and view.default.number == view.best.number
    compared = compare(
        view.best.metrics, summary_of(view.default), view.objective_metric, maximize=view.maximize
    )
    subject = variant(view, view.best)
    headline = f"Run {subject}." if subject else f"Trial {view.best.number} is the best."
    if same:
        headline = "Keep the default: no trial beat it."
    first = [_best_sentence(view, view.best, compared, same=same)]
    sentences = [*first, _slo_sentence(view), _binding_sentence(view), searched(view)]
    if view.default is not None and not view.default.feasible:
        sentences.insert(2, _default_sentence(view.default))
    return Words(headline, [text for text in sentences if text], _study_tiles(view, compared))


def variant(view: StudyView, trial: TrialView) -> str:
    """A trial's parameters in words: ``replicas 5 and cache.size 8000``."""
    short = short_names([parameter.path for parameter in view.parameters])
    return joined(
        [
            f"{short[item.path]} = {plain(trial.params[item.path].text, 60)}"
            for item in view.parameters
            if item.path in trial.params
        ]
    )


def _best_sentence(view: StudyView, best: TrialView, compared: Comparison, *, same: bool) -> str:
    name = compared.name
    reached = quantity(compared.best, name.unit)
    if compared.best_interval is not None:
        reached += f" (95 % interval {span(compared.best_interval, name.unit)})"
    text = f"Trial {best.number} reached a {name.label.lower()} of {reached}"
    if same:
        return text + "; it is the default variant."
    if compared.ratio is None:
        return text + "; there is no figure of the default to set it against."
    text += f", {times(compared.ratio)} the default's {quantity(compared.base, name.unit)}"
    if compared.ratio_interval is None:
        return text + " (no interval was measured for the ratio)."
    text += f"; the ratio's 95 % interval is {span(compared.ratio_interval)}"
    if compared.verdict == UNCLEAR:
        return text + ", which includes no change: the two cannot be told apart by these runs."
    return text + "."


def _slo_sentence(view: StudyView) -> str:
    best = summary_of(view.best)
    met = lookup(best, "slo.met")
    figures = []
    for path, bound in view.slo.items():
        name, value = metric_name(path), metric(best, path)
        if value is not None:
            figures.append(
                f"{name.label} {quantity(value, name.unit)}, bound {quantity(bound, name.unit)}"
            )
    detail = f" ({'; '.join(figures)})" if figures else ""
    if met is None:
        return "No service level objective was set." if not view.slo else f"SLO{detail}."
    if met:
        return f"It is within the SLO{detail}."
    return f"It misses the SLO{detail}: {slo_word(best).removeprefix('no: ')}."


def _default_sentence(default: TrialView) -> str:
    if default.metrics is None:
        reason = plain(default.reason) or "it did not run"
        return f"The default variant has no result: {reason.rstrip('.')}."
    if lookup(default.metrics, "slo.met") is False:
        return f"The default misses the SLO: {slo_word(default.metrics).removeprefix('no: ')}."
    return f"The default is not feasible: {(plain(default.reason) or default.state).rstrip('.')}."


def _binding_sentence(view: StudyView) -> str:
    mine, theirs = bottleneck(summary_of(view.best)), bottleneck(summary_of(view.default))
    if mine == NONE:
        return ""
    text = f"Its {role_of_bottleneck(summary_of(view.best))} is {mine}"
    if theirs in (NONE, mine):
        return text + (", as it is for the default." if theirs == mine else ".")
    return f"{text}; the default's is {theirs}."


def tally(view: StudyView) -> dict[str, int]:
    """Number of trials by outcome."""
    outcomes = [trial.outcome for trial in view.trials]
    return {outcome: outcomes.count(outcome) for outcome in OUTCOMES}


def searched(view: StudyView) -> str:
    """What was searched, in one sentence."""
    ranges = [f"{plain(item.path)} ({plain(item.range_text, 80)})" for item in view.parameters]
    counts = [f"{count} {kind}" for kind, count in tally(view).items() if count]
    text = f"{counted(len(view.trials), 'trial')} searched {joined(ranges) or 'nothing'}"
    return text + (f": {joined(counts)}." if counts else ".")


def _without_best(view: StudyView) -> Words:
    reasons = Counter(
        plain(trial.reason or trial.state, 200) for trial in view.trials if not trial.feasible
    )
    common = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:3]
    sentences = [searched(view)] if view.trials else ["The study has no trial yet."]
    if common:
        listed = "; ".join(f"{text} ({counted(count, 'trial')})" for text, count in common)
        sentences.append(f"Most frequent reasons: {listed}.")
    if view.default is not None and not view.default.feasible:
        sentences.append(_default_sentence(view.default))
    sentences.append("Widen the search ranges, relax the constraints, or lower the load.")
    headline = "No feasible variant was found." if view.trials else "Nothing to report yet."
    return Words(headline, sentences, [_trials_tile(view)])


def _study_tiles(view: StudyView, compared: Comparison) -> list[Tile]:
    best, name = summary_of(view.best), compared.name
    tiles = [
        Tile(
            f"Best {name.label.lower()}",
            quantity(compared.best, name.unit),
            f"95 % interval {span(compared.best_interval, name.unit)}"
            if compared.best_interval
            else "",
        )
    ]
    if compared.ratio is not None:
        bounds = compared.ratio_interval
        tone = {BETTER: GOOD, UNCLEAR: ""}.get(compared.verdict, WARN)
        tiles.append(
            Tile(
                "Against the default",
                times(compared.ratio),
                f"95 % interval {span(bounds)}" if bounds else "no interval",
                tone,
            )
        )
    p99_path = "latency_ms.all.p99"
    p99 = metric(best, p99_path)
    if p99 is not None and view.objective_metric != p99_path:
        bound = view.slo.get(p99_path)
        tone = "" if bound is None else GOOD if p99 <= bound else WARN
        note = f"SLO: at most {quantity(bound, 'ms')}" if bound is not None else "no bound set"
        tiles.append(Tile("p99 latency", quantity(p99, "ms"), note, tone))
    elif metric(best, "throughput_ops") is not None:
        tiles.append(_throughput_tile(best))
    return [*tiles, *_common_tiles(best), _trials_tile(view)]


def _throughput_tile(summary: Summary | None) -> Tile:
    bounds = interval(summary, "throughput_ops")
    return Tile(
        "Throughput",
        quantity(metric(summary, "throughput_ops"), "ops/s"),
        f"95 % interval {span(bounds, 'ops/s')}" if bounds else "",
    )


def _common_tiles(summary: Summary | None) -> list[Tile]:
    tiles = []
    resource = lookup(summary, "bottleneck.resource")
    if resource:
        used = metric(summary, "bottleneck.utilisation")
        note = f"{in_use(used)} in use" if used is not None else ""
        label = role_of_bottleneck(summary).capitalize()
        tiles.append(Tile(label, plain(resource, 40), note))
    verdict = lookup(summary, "consistency.verdict")
    if verdict and consistency(summary) != UNCLAIMED:
        tone = {"valid": GOOD, "invalid": WARN}.get(str(verdict), "")
        levels = consistency(summary).partition(": ")[2].replace("_", " ")
        tiles.append(Tile("Consistency", plain(verdict, 20), levels, tone))
    return tiles


def _trials_tile(view: StudyView) -> Tile:
    counts = tally(view)
    rest = [f"{count} {kind}" for kind, count in counts.items() if count and kind != FEASIBLE]
    return Tile("Feasible trials", f"{counts[FEASIBLE]} of {len(view.trials)}", ", ".join(rest))


def run_words(view: RunView) -> Words:
    """The summary of a single run."""
    summary = view.summary
    p99, operations = metric(summary, "latency_ms.all.p99"), metric(summary, "throughput_ops")
    figures = f"{quantity(operations, 'ops/s')} at a p99 of {quantity(p99, 'ms')}"
    valid = lookup(summary, "valid")
    headline = f"{figures}." if valid is not False else "This run may not be believed."
    sentences = []
    bounds = interval(summary, "throughput_ops"), interval(summary, "latency_ms.all.p99")
    if bounds[0] is not None:
        text = f"95 % intervals: throughput {span(bounds[0], 'ops/s')}"
        sentences.append(text + (f", p99 {span(bounds[1], 'ms')}." if bounds[1] else "."))
    if valid is False:
        reasons = lookup(summary, "invalid_reasons") or ["no reason was stored"]
        sentences.insert(0, f"Invalid: {'; '.join(plain(reason) for reason in reasons)}.")
        sentences.insert(1, f"It measured {figures}.")
    if lookup(summary, "host_limited"):
        sentences.append("The host itself was saturated: these are this machine's limits.")
    met = lookup(summary, "slo.met")
    if met is not None:
        missed = slo_word(summary).removeprefix("no: ")
        sentences.append("It is within the SLO." if met else f"It misses the SLO: {missed}.")
    if bottleneck(summary) != NONE:
        sentences.append(f"Its {role_of_bottleneck(summary)} is {bottleneck(summary)}.")
    if consistency(summary) == UNCLAIMED:
        sentences.append("It claims no consistency, so none was checked.")
    elif consistency(summary) != NONE:
        checked = metric(summary, "consistency.operations_checked")
        over = f" over {counted(int(checked), 'operation')}" if checked is not None else ""
        sentences.append(f"Consistency{over} is {consistency(summary).replace('_', ' ')}.")
    if recovery(summary) != NONE:
        text, lost = recovery(summary), lost_writes(summary)
        sentences.append(f"{text[0].upper()}{text[1:]}{'' if lost == NONE else f'; {lost}'}.")
    if overload(summary) != NONE:
        text = overload(summary)
        # A collapse is the first thing to know of a run.
        place = 0 if lookup(summary, "overload.metastable") else len(sentences)
        sentences.insert(place, f"{text[0].upper()}{text[1:]}.")
    if hot_shards(summary) != NONE:
        sentences.append(f"Of the shards {hot_shards(summary)}.")
    if moves(summary) != NONE:
        sentences.append(f"Data moved: {moves(summary)}.")
    if simulated(summary):
        sentences.append("All figures are of a simulation in virtual time.")
    return Words(headline, sentences, _run_tiles(summary))


def _run_tiles(summary: Summary) -> list[Tile]:
    met = lookup(summary, "slo.met")
    tone = {True: GOOD, False: WARN}.get(met, "") if isinstance(met, bool) else ""
    bounds = interval(summary, "latency_ms.all.p99")
    tiles = [
        _throughput_tile(summary),
        Tile(
            "p99 latency",
            quantity(metric(summary, "latency_ms.all.p99"), "ms"),
            f"95 % interval {span(bounds, 'ms')}" if bounds else "",
            tone,
        ),
    ]
    errors = metric(summary, "error_rate")
    if errors is not None:
        tiles.append(Tile("Errors", percent(errors), "failed or no answer"))
    ratio = metric(summary, "cache.hit_ratio")
    if ratio is not None:
        evictions = metric(summary, "cache.evictions")
        note = "" if evictions is None else f"{number(evictions)} evictions"
        tiles.append(Tile("Cache hit ratio", percent(ratio), note))
    unmatched = metric(summary, "compare_and_set.unmatched_share")
    if unmatched is not None:
        note = f"of {number(metric(summary, 'compare_and_set.compared'))} compare-and-sets"
        tiles.append(Tile("Did not match", percent(unmatched), note))
    tiles += [
        Tile(
            f"Goodput of {name}", quantity(metric(summary, f"tenants.{name}.goodput_ops"), "ops/s")
        )
        for name in lookup(summary, "tenants") or ()
    ]
    recovered_s = metric(summary, "resilience.recovered_s.p50")
    if recovered_s is not None:
        tiles.append(Tile("Recovery", quantity(recovered_s, "s"), "median over all faults"))
    return [*tiles, *_common_tiles(summary)]
