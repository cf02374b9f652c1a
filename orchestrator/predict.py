"""`archbench predict`: what the simulator says of a real run, beside that run.

Both runtimes carry out the same configuration with the same seeds, in turn, so that they meet the
same load and draw the same costs; what differs is what the simulator leaves out. With a host
profile its processes share cores and take what was measured, and costs may be measured ones. How
fast cores are changes on shared hosts from minute to minute; a fixed loop tells how fast they were
during the real run, and that is all that the simulation learns of it.

A pair whose real run is not valid says nothing of the simulator: it is made again with another
seed, and left out where others are valid.

With ``loads`` the capacity is compared first, under a closed load, and then latencies at those
shares of the capacity that the simulator found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator._pairs import Pair, valid_pairs
from orchestrator.analysis.comparison import Effect, of_pairs
from orchestrator.config.load import ConfigSource
from orchestrator.config.schema import RAY, SIM
from orchestrator.core.record import RunRecord, loop_quantiles_us
from orchestrator.plan import plan
from orchestrator.report.model import metric
from orchestrator.run import Runner, RunResult
from orchestrator.runtimes._parts import Parts

METRICS: Final = (
    "throughput_ops",
    "latency_ms.all.mean",
    "latency_ms.all.p50",
    "latency_ms.all.p90",
    "latency_ms.all.p99",
)
AS_CONFIGURED: Final = "as configured"
CAPACITY: Final = "capacity"
REPEATS: Final = 3
SESSIONS: Final = 64

Told = Callable[[str, str, dict[str, Any]], None]


@dataclass(frozen=True)
class Point:
    """One load in both runtimes; of each effect the base is real and the candidate simulated.

    ``runs``: result objects, simulated and real, in pairs. ``left_out``: of each other pair, why
    its real run is not valid.
    """

    name: str
    effects: dict[str, Effect]
    runs: tuple[list[dict[str, Any]], list[dict[str, Any]]]
    left_out: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Its part of the object of ``predict --json``."""
        return {
            "name": self.name,
            "offered_ops": self.runs[1][0]["offered_ops"],
            "sim": {name: each.candidate for name, each in self.effects.items()},
            "ray": {name: each.base for name, each in self.effects.items()},
            "ratios": {
                name: {
                    "ratio": each.ratio,
                    "ci95": None if each.interval is None else list(each.interval),
                }
                for name, each in self.effects.items()
            },
            "utilisation": _utilisation(self.runs[1]),
            "invalid_reasons": [
                reason for run in self.runs[1] for reason in run["invalid_reasons"]
            ],
            "left_out": list(self.left_out),
            "run_ids": {
                name: [run["run_id"] for run in runs]
                for name, runs in zip((SIM, RAY), self.runs, strict=True)
            },
        }


@dataclass(frozen=True)
class Prediction:
    """All points; ``profile``: the file of the host profile that was used, if any."""

    points: tuple[Point, ...]
    profile: str | None
    results: str

    @property
    def good(self) -> bool:
        """Whether every real run that counts may be believed."""
        return all(run["valid"] for point in self.points for run in point.runs[1])

    def as_json(self) -> dict[str, Any]:
        """The object of ``predict --json``; the first point stands at the top, too."""
        points = [point.as_json() for point in self.points]
        first = {name: points[0][name] for name in ("sim", "ray", "ratios")}
        return first | {"points": points, "profile": self.profile, "results": self.results}


def predict(
    source: ConfigSource,
    runner: Runner,
    *,
    profile: str | None = None,
    repeats: int = REPEATS,
    loads: Sequence[float] = (),
    sessions: int = SESSIONS,
    told: Told | None = None,
    lost: Callable[[str], None] | None = None,
) -> Prediction:
    """Run both; ``told(point, runtime, summary)`` hears of each run.

    Raises ConfigError where the config cannot be simulated, and what planning and running raise.
    """
    values = {} if profile is None else {"hosts.profile": profile}
    made = source.with_values(values)
    config = made.build()
    for runtime in (RAY, SIM):
        plan(made.with_values({"runtime": runtime}).build())
    both = _Both(made, runner, repeats, told, lost)
    if not loads:
        return Prediction(
            (both.point(AS_CONFIGURED, {}),), config.hosts.profile, runner.store.results
        )
    closed = {"arrival": {"name": "closed", "sessions": sessions}}
    points = [both.point(CAPACITY, closed)]
    capacity_ops = points[0].effects["throughput_ops"].candidate
    for load in loads:
        arrival = {"name": "poisson", "rate": f"{load * capacity_ops:.6g}/s"}
        points.append(both.point(f"{load:.0%} of it", {"arrival": arrival}))
    return Prediction(tuple(points), config.hosts.profile, runner.store.results)


@dataclass(frozen=True)
class _Both:
    """Runs one configuration in both runtimes in turn."""

    source: ConfigSource
    runner: Runner
    repeats: int
    told: Told | None
    lost: Callable[[str], None] | None

    def point(self, name: str, values: Mapping[str, Any]) -> Point:
        """Under those values."""
        source = self.source.with_values(values)
        seed = source.build().seed
        kept, others = valid_pairs(
            lambda number: self._pair(name, source.with_values({"seed": seed + number})),
            lambda pair: bool(pair[1]["valid"]),
            self.repeats,
        )
        if not kept:
            kept, others = others, []
        runs = ([simulated for simulated, _ in kept], [real for _, real in kept])
        left_out = tuple("; ".join(real["invalid_reasons"]) for _, real in others)
        return Point(name, _effects(runs), runs, left_out)

    def _pair(self, name: str, source: ConfigSource) -> Pair:
        """Simulated and real."""
        real = self._run(name, source.with_values({"runtime": RAY}))
        simulated = self._run(name, source.with_values(_simulated(source, real.record)))
        return simulated.summary, real.summary

    def _run(self, name: str, source: ConfigSource) -> RunResult:
        config = source.build()
        result = self.runner.run_surely(config, self.lost)
        if self.told is not None:
            self.told(name, config.runtime, result.summary)
        return result


def _simulated(source: ConfigSource, real: RunRecord) -> dict[str, Any]:
    """What the simulation of a run is told besides: how fast its core was for each process
    meanwhile, where it has a profile of them that says how much that matters.
    """
    values: dict[str, Any] = {"runtime": SIM}
    config = source.build()
    if config.hosts.profile is None:
        return values
    used = [each.usage for each in real.nodes] + [each.usage for each in real.clients]
    loops = [loop_quantiles_us([each]) for each in used]
    if None in loops or len(loops) != Parts.of(config).machines + config.clients:
        # Of an authority and of a cache tier nobody tells.
        loops = [loop_quantiles_us(used)]
    known = [each for each in loops if each is not None]
    if known:
        values["hosts.loops"] = [[f"{value:.3f}us" for value in each] for each in known]
    return values


def _effects(runs: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> dict[str, Effect]:
    effects = {}
    for name in METRICS:
        simulated, real = ([metric(run, name) for run in each] for each in runs)
        if None not in simulated and None not in real:
            known = [[value for value in each if value is not None] for each in (real, simulated)]
            effects[name] = of_pairs(*known)
    return effects


def _utilisation(runs: Sequence[Mapping[str, Any]]) -> float | None:
    """Of the bottleneck, over all runs."""
    known = [run["bottleneck"]["utilisation"] for run in runs if run["bottleneck"] is not None]
    shares = [share for share in known if share is not None]
    return sum(shares) / len(shares) if shares else None
