"""``archbench fuzz``: many seeds of one protocol, what they reached, and what they broke."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orchestrator.config.load import load_mapping, parse_override
from orchestrator.core.registry import Family, plugins
from orchestrator.errors import ConfigError
from orchestrator.fuzzing.draw import draw
from orchestrator.fuzzing.minimise import minimise
from orchestrator.fuzzing.scenario import Scenario, dump, load
from orchestrator.fuzzing.simulation import Outcome, Violation, simulate

FAULTS_MIN: Final = 3
"""A simulation in which fewer faults had an effect is drawn again."""
ATTEMPTS: Final = 8
CHUNK: Final = 8
"""Seeds that one worker takes at a time."""
PARALLEL_FROM: Final = 100
"""Fewer seeds than that are not worth starting Ray for."""


@dataclass(frozen=True)
class Wanted:
    """Which simulations: a protocol, a profile of faults, and parameters that are not drawn."""

    protocol: str
    profile: str = "mixed"
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A seed that broke a property, and the smallest scenario that breaks it too."""

    seed: int
    violation: Violation
    scenario: Scenario
    file: str | None = None


@dataclass
class Findings:
    """What some seeds showed. ``weak``: seeds in which too few faults had an effect; ``marks``:
    what they reached, by name.
    """

    seeds: int = 0
    operations: int = 0
    effective_faults: int = 0
    weak: int = 0
    marks: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        """Join what other seeds showed."""
        self.seeds += other.seeds
        self.operations += other.operations
        self.effective_faults += other.effective_faults
        self.weak += other.weak
        self.failures += other.failures
        for name, count in other.marks.items():
            self.marks[name] = self.marks.get(name, 0) + count


def fixed_parameters(protocol: str, overrides: Sequence[str]) -> dict[str, Any]:
    """``key=value`` as parameters of the protocol.

    Raises ConfigError for what the protocol does not know or take.
    """
    fixed = dict(parse_override(text) for text in overrides)
    chosen = {"name": protocol} | fixed
    if protocol in plugins(Family.PATTERN):
        load_mapping({"system": {"tier": {"pattern": chosen, "ttl": "1s"}}})
    else:
        slot = "transactions" if protocol in plugins(Family.TRANSACTIONS) else "protocol"
        load_mapping({"system": {slot: chosen}})
    return fixed


def replay(wanted: Wanted, path: str) -> tuple[Findings, float]:
    """Run a kept scenario. Raises InputError or DataError where it cannot be read, and
    ConfigError where it is of another protocol.
    """
    began_s = time.monotonic()
    scenario = load(path)
    if scenario.protocol != wanted.protocol:
        raise ConfigError(
            f"the scenario is of protocol {scenario.protocol!r}", path=path, hint="name that one"
        )
    outcome = simulate(scenario)
    findings = _findings_of(outcome)
    if outcome.violation is not None:
        findings.failures.append(Failure(scenario.seed, outcome.violation, scenario, path))
    return findings, time.monotonic() - began_s


def simulate_seed(
    wanted: Wanted, seed: int, machine: type[Any] | None = None
) -> tuple[Scenario, Outcome]:
    """The simulation of a seed: the first drawing in which enough faults had an effect, and of
    which the checkers can tell whether all was well.
    """
    for attempt in range(ATTEMPTS):
        scenario = draw(
            wanted.protocol, seed, attempt=attempt, profile=wanted.profile, fixed=wanted.fixed
        )
        outcome = simulate(scenario, machine)
        found = outcome.violation
        if not found.undecided if found else outcome.effective_faults >= FAULTS_MIN:
            break
    return scenario, outcome


def simulate_seeds(
    wanted: Wanted, seeds: Iterable[int], machine: type[Any] | None = None
) -> Findings:
    """Some seeds, one after another; failing ones are minimised."""
    findings = Findings()
    for seed in seeds:
        scenario, outcome = simulate_seed(wanted, seed, machine)
        findings.add(_findings_of(outcome))
        if outcome.violation is not None:
            smallest = minimise(scenario, outcome, machine)
            violation = smallest.outcome.violation
            assert violation is not None
            findings.failures.append(Failure(seed, violation, smallest.scenario))
    return findings


def _findings_of(outcome: Outcome) -> Findings:
    """What one simulation showed, but for its violation."""
    weak = outcome.violation is None and outcome.effective_faults < FAULTS_MIN
    return Findings(1, outcome.operations, outcome.effective_faults, int(weak), dict(outcome.marks))


def fuzz(
    wanted: Wanted,
    seeds: Sequence[int],
    *,
    folder: str | os.PathLike[str],
    address: str | None = None,
    told: Callable[[Findings], None] = lambda findings: None,
) -> tuple[Findings, float]:
    """All seeds, in parallel over Ray where they are many; (findings, seconds they took).

    Minimised scenarios are written to ``folder``. ``told`` hears of progress.
    """
    findings = Findings()
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    began_s = time.monotonic()
    if len(seeds) < PARALLEL_FROM and address is None:
        parts: Iterable[Findings] = (
            simulate_seeds(wanted, [seed]) for chunk in chunks for seed in chunk
        )
    else:
        from orchestrator.runtimes.ray_tasks import spread

        parts = spread(simulate_seeds, [(wanted, list(chunk)) for chunk in chunks], address)
        began_s = time.monotonic()
    for part in parts:
        findings.add(part)
        told(findings)
    took_s = time.monotonic() - began_s
    findings.failures.sort(key=lambda failure: failure.seed)
    findings.failures = [_kept(failure, wanted, folder) for failure in findings.failures]
    return findings, took_s


def _kept(failure: Failure, wanted: Wanted, folder: str | os.PathLike[str]) -> Failure:
    """Write the minimised scenario, so that it can be run again and looked at."""
    path = Path(folder) / f"{wanted.protocol}-{failure.seed}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_text(dump(failure.scenario), encoding="utf-8")
    fresh.replace(path)
    return Failure(failure.seed, failure.violation, failure.scenario, str(path))


def reproducing_command(wanted: Wanted, seed: int) -> str:
    """The one command that runs a seed again."""
    words = ["archbench", "fuzz", wanted.protocol, "--seed", str(seed)]
    if wanted.profile != "mixed":
        words += ["--profile", wanted.profile]
    words += [shlex.quote(f"{key}={value}") for key, value in wanted.fixed.items()]
    return " ".join(words)


def as_json(
    wanted: Wanted, findings: Findings, took_s: float, scenario: str | None = None
) -> dict[str, Any]:
    """The object that ``archbench fuzz --json`` prints; ``scenario``: the file that was run."""

    def command(failure: Failure) -> str:
        if scenario is None:
            return reproducing_command(wanted, failure.seed)
        return f"archbench fuzz {wanted.protocol} --scenario {shlex.quote(scenario)}"

    return {
        "protocol": wanted.protocol,
        "profile": wanted.profile,
        "seeds": findings.seeds,
        "operations": findings.operations,
        "effective_faults": findings.effective_faults,
        "weak_seeds": findings.weak,
        "coverage": dict(sorted(findings.marks.items())),
        "violations": [
            {
                "seed": failure.seed,
                "property": failure.violation.property,
                "explanation": failure.violation.explanation,
                "witness": list(failure.violation.witness),
                "command": command(failure),
                "scenario": failure.file,
                "minimised": {
                    "operations": len(failure.scenario.operations),
                    "faults": len(failure.scenario.faults),
                    "nodes": failure.scenario.nodes,
                },
            }
            for failure in findings.failures
        ],
        "seconds": took_s,
        "seeds_per_minute": findings.seeds / took_s * 60 if took_s > 0 else None,
    }
