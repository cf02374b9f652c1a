"""Runs for a search: those that are stored already are not made again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.config.render import config_hash
from orchestrator.config.schema import Config
from orchestrator.run import Runner
from orchestrator.runtimes._parts import Parts


class RecalledRuns:
    """Measures, or remembers; ``made``: how many runs it took. Simulated runs are taken as they
    are, valid or not, since they would come out as they did.
    """

    def __init__(self, runner: Runner, lost: Callable[[str], None] | None) -> None:
        self._runner, self._lost = runner, lost
        self._done = runner.valid_results(simulated=True)
        self.made = 0

    def result(self, planned: Parts, repeat: int) -> dict[str, Any]:
        """The result object of a plan; ``repeat``: of several alike the how-manieth it is."""
        config: Config = planned.config
        summary = self._done.get(config_hash(config))
        if summary is None:
            summary = self._runner.run_surely(planned, self._lost, repeat=repeat).summary
            self.made += 1
        return summary
