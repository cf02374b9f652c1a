"""EPaxos under faults, many of them recoveries, and what it claims."""

from __future__ import annotations

from typing import Any

import pytest
from epaxos_watch import InstanceWatch
from sim_faults import configured, problem_of

from orchestrator.core.levels import EVENTUAL, LINEARIZABLE
from orchestrator.core.machine import (
    ClaimContext,
)
from orchestrator.core.parameters import ParameterError
from orchestrator.core.units import NS_PER_MS
from orchestrator.protocols.epaxos import EPaxos, Params

QUICK = {"name": "epaxos", "recovery": "60ms", "resend": "20ms"}
EAGER = {"name": "epaxos", "recovery": "16ms", "resend": "5ms"}
HOT = ("workload.keys=2", "client.sticky=false")

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
