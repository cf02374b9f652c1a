"""EPaxos under faults, many of them recoveries, and twins of it that must be caught."""

from __future__ import annotations

from typing import Any

import pytest
from epaxos_watch import InstanceWatch
from sim_faults import configured, problem_of
from twins import Twin
from twins_epaxos import EAGER, HOT, QUICK, TWINS

from orchestrator.core.levels import EVENTUAL, LINEARIZABLE
from orchestrator.core.machine import (
    ClaimContext,
)
from orchestrator.core.parameters import ParameterError
from orchestrator.core.units import NS_PER_MS
from orchestrator.protocols.epaxos import EPaxos, Params

# Each seed takes the next of these: overrides, protocol parameters, faults.
PROFILES: tuple[tuple[tuple[str, ...], dict[str, Any], dict[str, Any]], ...] = (
    ((), QUICK, {}),
    (("system.network.ordering=none", "system.network.loss=0.05"), QUICK, {"repeats": 0.1}),
    (("system.replicas=5", "system.batch.max=1"), QUICK, {"gap_ns": 60 * NS_PER_MS}),
    (
        ("system.node.storage.sync.mean=10ms",),
        QUICK,
        {"crashes": 1.0, "gap_ns": 40 * NS_PER_MS},
    ),
    (("workload.mix=e", "workload.keys=8"), QUICK, {"repeats": 0.05}),
    (
        ("system.replicas=5", "system.network.ordering=none"),
        QUICK,
        {"gap_ns": 30 * NS_PER_MS, "away_ns": 100 * NS_PER_MS},
    ),
    (("system.replicas=7",), QUICK, {"gap_ns": 30 * NS_PER_MS, "crashes": 0.3}),
    (HOT, EAGER, {"gap_ns": 20 * NS_PER_MS, "away_ns": 25 * NS_PER_MS, "loss": 0.05}),
)
RECOVERIES: dict[str, Any] = {
    "gap_ns": 12 * NS_PER_MS,
    "away_ns": 25 * NS_PER_MS,
    "crashes": 0.3,
    "loss": 0.05,
}
"""Many proposers struck, and several nodes that recover the same instance at once."""
BLINKING = RECOVERIES | {"away_ns": 5 * NS_PER_MS, "crashes": 0.9, "loss": 0.25}
FAULTS = {"vouches after a restart": BLINKING}


# --- under faults -----------------------------------------------------------------------


def fault_problem(seed: int, *more: str) -> str:
    """What a simulation under faults shows; empty where all is well."""
    overrides, protocol, faults = PROFILES[seed % len(PROFILES)]
    config = configured(seed, {"protocol": protocol}, *overrides, *more)
    return problem_of(config, faults=faults, watch=InstanceWatch())


def test_faults_break_nothing() -> None:
    assert [fault_problem(seed, "duration=1s") for seed in range(8)] == [""] * 8


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_faults_break_nothing() -> None:
    for seed in range(100, 400):
        assert fault_problem(seed) == "", f"seed {seed}"


def first_caught(twin: Twin, seeds: range, machine: type[Any] | None = None) -> int | None:
    """The first seed whose faults show that something is wrong."""
    faults = FAULTS.get(twin.name, RECOVERIES)
    for seed in seeds:
        config = configured(seed, twin.system, *twin.overrides)
        if problem_of(config, machine=machine or twin.machine, faults=faults):
            return seed
    return None


RARELY_CAUGHT = ("one ballot", "ignores rivals", "vouches after a restart")
QUICKLY_CAUGHT = [twin for twin in TWINS if twin.name not in RARELY_CAUGHT]


@pytest.mark.parametrize("twin", QUICKLY_CAUGHT, ids=lambda twin: twin.name)
def test_faults_catch_a_broken_twin(twin: Twin) -> None:
    assert first_caught(twin, range(10)) is not None


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_many_faults_catch_a_broken_twin_only(twin: Twin) -> None:
    assert first_caught(twin, range(500)) is not None
    assert first_caught(twin, range(60), EPaxos) is None


# --- configuration ----------------------------------------------------------------------


def test_parameters_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ParameterError, match="resend"):
        Params(recovery=100, resend=60)


def test_claims_need_what_a_restart_remembers() -> None:
    remembers = ClaimContext(3, False, "fsync", 3, True)
    assert EPaxos.claims(Params(), remembers) == {LINEARIZABLE}
    assert EPaxos.read_levels(Params(), remembers) == {LINEARIZABLE, EVENTUAL}
    forgets = ClaimContext(5, False, "memory", 5, True)
    assert EPaxos.claims(Params(), forgets) == EPaxos.read_levels(Params(), forgets) == frozenset()
    assert "3 of 5" in EPaxos.why_not(Params(), forgets, LINEARIZABLE)
