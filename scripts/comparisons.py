"""Whether comparisons of real runs tell the truth: ``python scripts/comparisons.py``.

Compares systems with themselves, where any difference that is found is a mistake, and with one
whose operations take a twentieth longer, where it is a mistake to find none. Everything runs on an
embedded Ray on this host, as ``archbench compare`` does it. Writes docs/comparisons.md. Takes forty
minutes on a host that has nothing else to do; figures are of that host.
"""

from __future__ import annotations

import datetime
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator.analysis.comparison import BETTER, LEVEL, THRESHOLD, WORSE
from orchestrator.compare import ComparisonResult, compare_configs
from orchestrator.config.load import ConfigSource
from orchestrator.run import Runner

PAGE = Path(__file__).resolve().parent.parent / "docs" / "comparisons.md"
PAIRS: Final = 5
SLOWER: Final = 1.05
OPERATION_US: Final = 1000


@dataclass(frozen=True)
class Trial:
    """A number of comparisons of one system with itself, or with one whose modelled operations
    take ``slower`` times as long.
    """

    name: str
    system: dict[str, Any]
    arrival: dict[str, Any]
    comparisons: int
    seconds: float
    slower: float = 1.0

    def sources(self, seed: int) -> tuple[ConfigSource, ConfigSource]:
        """Base and candidate."""
        base = self._source(seed)
        if self.slower == 1:
            return base, base
        mean = f"{OPERATION_US * self.slower:g}us"
        laws = ("system.node.cpu.read.mean", "system.node.cpu.write.mean")
        return base, base.with_values(dict.fromkeys(laws, mean))

    def _source(self, seed: int) -> ConfigSource:
        return ConfigSource.of(
            {
                "experiment": "comparisons",
                "seed": seed,
                "system": self.system,
                "workload": {"name": "ycsb", "mix": "a", "keys": 1000},
                "arrival": self.arrival,
                "client": {"timeout": "10s"},
                "warmup": "250ms",
                "duration": f"{self.seconds:g}s",
                "check": {"level": "none"},
            }
        )


_LAW: Final = {"name": "exponential", "mean": f"{OPERATION_US}us"}
ONE: Final = {
    "protocol": {"name": "unreplicated"},
    "node": {"cpu": {"read": _LAW, "write": _LAW}},
    # Long against what the host itself takes.
    "network": {"delay": "2ms"},
}
RAFT: Final = {"protocol": {"name": "raft"}, "replicas": 3, "node": {"costs": "measured"}}
POISSON: Final = {"name": "poisson", "rate": f"{600_000 / OPERATION_US:g}/s"}
CLOSED: Final = {"name": "closed", "sessions": 16}
TRIALS: Final = (
    Trial("three processes of Raft, measured costs, as fast as they can", RAFT, CLOSED, 50, 1.0),
    Trial("one node, modelled costs, 60 % busy", ONE, POISSON, 50, 1.0),
    Trial("one node, modelled costs, 60 % busy", ONE, POISSON, 10, 5.0, SLOWER),
)


def row(trial: Trial, runner: Runner) -> str:
    """Carries out its comparisons; a line of the table."""
    verdicts: list[str] = []
    invalid = 0
    for comparison in range(trial.comparisons):
        done = compare_configs(*trial.sources(1 + 100 * comparison), runner, pairs=PAIRS)
        invalid += done.invalid
        verdicts.append(done.verdict)
        print(f"{trial.name}, {comparison + 1}: {_said(done)}", file=sys.stderr, flush=True)
    longer = f"{100 * (trial.slower - 1):.0f} %"
    kind = "itself" if trial.slower == 1 else f"one that takes {longer} longer"
    different = sum(verdict in (BETTER, WORSE) for verdict in verdicts)
    cells = (trial.name, kind, f"{trial.seconds:g} s", len(verdicts), different)
    return "| " + " | ".join(map(str, (*cells, verdicts.count(WORSE), invalid))) + " |"


def _said(done: ComparisonResult) -> str:
    figures = [
        f"{name} {each.ratio:.3f} (p {each.p:.3f})"
        for name, each in done.effects.items()
        if each.verdict in (BETTER, WORSE) and each.ratio is not None and each.p is not None
    ]
    return " ".join([done.verdict, *figures])


def page(lines: list[str]) -> str:
    """The text of docs/comparisons.md."""
    return f"""# Do comparisons tell the truth?

`python scripts/comparisons.py` compared real systems on Ray with themselves on
{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, and with one that is slower, as `archbench compare`
does: {PAIRS} pairs of runs, base and candidate in turn, with Holm's correction for the figures that
are looked at, a level of {100 * LEVEL:.0f} % and a practical threshold of {100 * THRESHOLD:.0f} %.
A system that is called better or worse than itself is a mistake: at a level of 5 % there may be 5
in 100, and by chance 8.

| base | candidate | a run lasts | comparisons | called different | called worse | invalid runs |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(lines)}

Runs that are not valid are left out together with their partners, and other pairs are made.
"""


def main() -> int:
    """Compare, and write the page."""
    with tempfile.TemporaryDirectory() as folder, Runner(f"{folder}/results") as runner:
        text = page([row(trial, runner) for trial in TRIALS])
    PAGE.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
