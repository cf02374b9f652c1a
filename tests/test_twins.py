"""Every known-bad twin is caught by the fuzzer, and by the scenario of it that is kept.

The kept scenarios were minimised from what the fuzzer found. The right machine passes them.
``python tests/test_twins.py NAME ...`` finds and keeps them anew.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from twins import Twin

from orchestrator.core.registry import Family, plugin, plugins
from orchestrator.errors import ArchbenchError
from orchestrator.fuzz import Wanted, simulate_seed
from orchestrator.fuzzing.minimise import minimise
from orchestrator.fuzzing.scenario import dump, load
from orchestrator.fuzzing.simulation import Violation, simulate

HERE = Path(__file__).parent
SCENARIOS = HERE / "scenarios"
SEEDS = 1000


def all_twins() -> list[Twin]:
    """Those of every module beside this one."""
    modules = sorted(path.stem for path in HERE.glob("twins_*.py"))
    return [twin for name in modules for twin in importlib.import_module(name).TWINS]


def slug(twin: Twin) -> str:
    """``raft-forgets_its_vote``: the name of its scenario."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9]+", "_", twin.name).lower().strip("_")
    return f"{twin.protocol}-{words.removeprefix(twin.protocol + '_')}"


TWINS = all_twins()
every_twin = pytest.mark.parametrize("twin", TWINS, ids=slug)


def fixed_parameters(twin: Twin) -> dict[str, Any]:
    """What the twin is about is not drawn, nor any word or switch of a protocol's.

    Those that it does not fix are as they are by default.
    """
    if twin.protocol in plugins(Family.TRANSACTIONS):
        return dict(twin.fixed)
    params = dataclasses.fields(plugin(Family.PROTOCOL, twin.protocol).params)
    words = [each for each in params if "options" in each.metadata or each.type == "bool"]
    fixed = {each.name: each.default for each in words} | dict(twin.fixed)
    order = [each.name for each in params]
    return {name: fixed[name] for name in sorted(fixed, key=order.index)}


def hunts(twin: Twin) -> list[Wanted]:
    """Its profiles, in turn."""
    fixed = fixed_parameters(twin)
    return [Wanted(twin.protocol, profile, fixed) for profile in twin.profiles]


def hunt(twin: Twin, seeds: int) -> tuple[int, Wanted, Any, Any] | None:
    """(seed, what was wanted, scenario, outcome) of the first seed that catches it."""
    wanted = hunts(twin)
    for seed in range(seeds):
        asked = wanted[seed % len(wanted)]
        scenario, outcome = simulate_seed(asked, seed, twin.machine)
        if outcome.violation is not None:
            return seed, asked, scenario, outcome
    return None


def told(violation: Violation) -> str:
    witness = "".join(f"\n    {dict(operation)}" for operation in violation.witness)
    return f"{violation.property}: {violation.explanation}{witness}"


@pytest.mark.parametrize("name", [path.stem for path in sorted(SCENARIOS.glob("*.yaml"))])
def test_a_kept_scenario_catches_its_twin_and_not_the_machine(name: str) -> None:
    twin = next(each for each in TWINS if slug(each) == name)
    scenario = load(SCENARIOS / f"{name}.yaml")
    outcome = simulate(scenario, twin.machine)
    assert outcome.violation is not None, twin.why
    print(f"{name} ({twin.why}) breaks {told(outcome.violation)}")
    right = simulate(scenario)
    assert right.violation is None, right.violation


def test_every_twin_has_a_kept_scenario() -> None:
    assert sorted(path.stem for path in SCENARIOS.glob("*.yaml")) == sorted(map(slug, TWINS))


@pytest.mark.long
@pytest.mark.timeout(600)
@every_twin
def test_the_fuzzer_catches_the_twin_and_passes_the_machine(twin: Twin) -> None:
    found = hunt(twin, SEEDS)
    assert found is not None, f"not caught within {SEEDS} seeds: {twin.why}"
    seed, asked, _, outcome = found
    print(f"{slug(twin)}: seed {seed} of profile {asked.profile} breaks {told(outcome.violation)}")
    for near in range(max(0, seed - 20), seed + 20):
        _, right = simulate_seed(asked, near)
        assert right.violation is None, right.violation


def keep(twin: Twin) -> str:
    """Find the twin, minimise what caught it, and keep the scenario."""
    found = hunt(twin, SEEDS)
    if found is None:
        return f"{slug(twin)}: not caught within {SEEDS} seeds"
    seed, asked, scenario, outcome = found
    smallest = minimise(scenario, outcome, twin.machine, runs_max=300)
    try:
        right = simulate(smallest.scenario).violation
    except ArchbenchError as error:
        return f"{slug(twin)}: {error}"
    SCENARIOS.mkdir(exist_ok=True)
    (SCENARIOS / f"{slug(twin)}.yaml").write_text(dump(smallest.scenario))
    violation = smallest.outcome.violation
    assert violation is not None
    small = smallest.scenario
    return (
        f"{slug(twin)}: seed {seed} ({asked.profile}), {len(small.operations)} operations,"
        f" {len(small.faults)} faults, {small.nodes} nodes: {violation.property}:"
        f" {violation.explanation[:100]}" + (f"; THE MACHINE FAILS TOO: {right}" if right else "")
    )


if __name__ == "__main__":
    for each in TWINS:
        if not sys.argv[1:] or any(word in slug(each) for word in sys.argv[1:]):
            print(keep(each), flush=True)
