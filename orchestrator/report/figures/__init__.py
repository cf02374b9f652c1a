"""The figures of a report: drawn once, used in the page and as files."""

from __future__ import annotations

from orchestrator.report.figures import latency, nodes, parameters, series, shards, study
from orchestrator.report.figures._canvas import Picture, inline_svg
from orchestrator.report.model import RunView, StudyView

__all__ = ["Picture", "inline_svg", "run_figures", "study_figures"]


def study_figures(view: StudyView) -> list[Picture]:
    """All seven figures of a study; those without data are marked empty."""
    return [
        study.history(view),
        study.tradeoff(view),
        parameters.slices(view),
        parameters.importance(view),
        latency.latency(view.best_run, view.default_run, view.slo),
        series.series(view.best_run, of="the best variant"),
        nodes.utilisation(view.best_run, of="the best variant"),
    ]


def run_figures(view: RunView) -> list[Picture]:
    """The three figures of a single run, and that of its shards where it has any."""
    found = [latency.latency_by_kind(view), series.series(view), nodes.utilisation(view)]
    of_shards = shards.shards(view)
    return found if of_shards is None else [*found, of_shards]
