"""Multi-Paxos under faults, and what it claims."""

from __future__ import annotations

from typing import Any

import pytest
from multi_paxos_watch import SlotWatch
from sim_faults import configured, problem_of

from orchestrator.core.levels import EVENTUAL, LINEARIZABLE, SEQUENTIAL
from orchestrator.core.machine import (
    ClaimContext,
)
from orchestrator.core.units import NS_PER_MS
from orchestrator.protocols.multi_paxos import MultiPaxos, Params

QUICK = {"name": "multi_paxos", "election_timeout": "60ms", "heartbeat": "10ms"}
BUSY = (
    "client.sticky=false",
    "clients=6",
    "arrival.sessions=24",
    "arrival.think_time.mean=4ms",
    "workload.keys=1",
)

# Each seed takes the next of these: overrides, protocol parameters, faults.
PROFILES: tuple[tuple[tuple[str, ...], dict[str, Any], dict[str, Any]], ...] = (
    ((), {}, {}),
    (("system.network.ordering=none", "system.network.loss=0.05"), {}, {"repeats": 0.1}),
    (("system.replicas=5", "system.batch.max=1"), {}, {"hunt": 0.8, "gap_ns": 60 * NS_PER_MS}),
    (
        ("system.node.storage.sync.mean=10ms",),
        {"reads": "lease"},
        {"crashes": 1.0, "gap_ns": 40 * NS_PER_MS},
    ),
    ((), {"in_flight": 1}, {"loss": 0.2, "ambush_ns": 12 * NS_PER_MS}),
    (BUSY, {"reads": "lease"}, {"crashes": 0.2, "hunt": 0.8, "gap_ns": 40 * NS_PER_MS}),
    (("client.reads={linearizable: 1, sequential: 1, eventual: 1}",), {}, {}),
)


# --- under faults -----------------------------------------------------------------------


def fault_problem(seed: int) -> str:
    """What a simulation under faults shows; empty where all is well."""
    overrides, protocol, faults = PROFILES[seed % len(PROFILES)]
    config = configured(seed, {"protocol": QUICK | protocol}, *overrides)
    return problem_of(config, faults=faults, watch=SlotWatch())


def test_faults_break_nothing() -> None:
    assert [fault_problem(seed) for seed in range(7)] == [""] * 7


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_faults_break_nothing() -> None:
    for seed in range(100, 400):
        assert fault_problem(seed) == "", f"seed {seed}"


def test_claims_need_what_a_restart_remembers() -> None:
    remembers = ClaimContext(3, False, "fsync", 3, True)
    assert MultiPaxos.claims(Params(), remembers) == {LINEARIZABLE}
    assert MultiPaxos.read_levels(Params(), remembers) == {LINEARIZABLE, SEQUENTIAL, EVENTUAL}
    forgets = ClaimContext(3, False, "async", 3, True)
    assert MultiPaxos.claims(Params(), forgets) == frozenset()
    assert "2 of 3" in MultiPaxos.why_not(Params(), forgets, LINEARIZABLE)
