"""Raft under faults: the safety properties of figure 3, and twins of it that must be caught."""

from __future__ import annotations

from typing import Any

import pytest
from machine_bench import Bench
from raft_watch import (
    AcknowledgesEarly,
    CommitsOldTerms,
    ForgetsItsVote,
    RaftWatch,
    SkipsLogMatching,
    Storm,
)
from sim_faults import configured, simulate

from orchestrator.core.randomness import scalar_stream
from orchestrator.core.units import NS_PER_MS
from orchestrator.protocols import raft
from orchestrator.protocols.raft import Params, Raft

PROTOCOL = {"name": "raft", "election_timeout": "60ms", "heartbeat": "10ms"}
IMPATIENT = Params(election_timeout=100, heartbeat=50, in_flight=2)

# Each seed takes the next of these.
CONDITIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    ((), {}),
    (("system.network.ordering=none", "system.network.loss=0.05"), {}),
    (("system.replicas=5", "system.batch.max=1"), {"hunt": 0.8, "gap_ns": 60 * NS_PER_MS}),
    (("system.node.storage.sync.mean=10ms",), {"crashes": 1.0, "gap_ns": 40 * NS_PER_MS}),
    (("system.protocol.in_flight=1",), {"loss": 0.2, "ambush_ns": 12 * NS_PER_MS}),
)


def fault_problem(
    seed: int,
    machine: type[Raft] = Raft,
    condition: int | None = None,
) -> str:
    """What a simulation under faults shows; empty where all is well."""
    overrides, faults = CONDITIONS[seed % len(CONDITIONS) if condition is None else condition]
    config = configured(seed, {"protocol": PROTOCOL}, *overrides)
    watch = RaftWatch()
    try:
        problem = simulate(config, machine=machine, faults=faults, watch=watch).problem
        watch.finish()
    except AssertionError as error:
        return f"seed {seed}: {error}"
    return problem and f"seed {seed}: {problem}"


def storm_problem(seed: int, machine: type[Raft] = Raft, nodes: int = 3) -> str:
    """What a storm shows; empty where all is well."""
    watch = RaftWatch()
    try:
        bench = Bench(machine, IMPATIENT, nodes, seed=seed, batch_max=2, watch=watch)
        Storm(bench, scalar_stream(seed, "storm")).rage(60)
        watch.finish()
    except AssertionError as error:
        return f"seed {seed}: {error}"
    return ""


@pytest.mark.parametrize("seed", range(20))
def test_raft_is_safe_under_faults(seed: int) -> None:
    assert fault_problem(seed) == ""


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(20, 320, 50))
def test_raft_is_safe_under_many_faults(first: int) -> None:
    assert [fault_problem(seed) for seed in range(first, first + 50)] == [""] * 50


@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_raft_is_safe_in_storms(nodes: int) -> None:
    assert {storm_problem(seed, nodes=nodes) for seed in range(60)} == {""}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("nodes", [3, 4, 5])
def test_raft_is_safe_in_many_storms(nodes: int) -> None:
    assert {storm_problem(seed, nodes=nodes) for seed in range(3000)} == {""}


@pytest.mark.parametrize("seed", range(4))
def test_dropping_the_prefix_keeps_raft_safe(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raft, "_DROP_AT_LEAST", 5)
    assert fault_problem(seed) == ""
    assert storm_problem(seed) == ""


def test_faults_disturb_and_the_load_goes_on() -> None:
    config = configured(1, {"protocol": PROTOCOL})
    watch = RaftWatch()
    outcome = simulate(config, faults={}, watch=watch)
    assert len(watch.leaders) > 3
    kinds = [event.kind for event in outcome.cluster.events]
    assert kinds.count("crash") == kinds.count("restart") > 3
    ok, _, unknown = [(outcome.history.outcome == number).sum() for number in range(3)]
    assert ok > 300
    assert unknown > 5


# --- twins that break one rule ----------------------------------------------------------


@pytest.mark.parametrize(
    ("twin", "seeds"), [(SkipsLogMatching, 10), (CommitsOldTerms, 40), (ForgetsItsVote, 150)]
)
def test_storms_catch_a_broken_twin(twin: type[Raft], seeds: int) -> None:
    caught = next((seed for seed in range(seeds) if storm_problem(seed, twin)), None)
    assert caught is not None


@pytest.mark.parametrize(("twin", "condition"), [(SkipsLogMatching, 2), (AcknowledgesEarly, 3)])
def test_faults_catch_a_broken_twin(twin: type[Raft], condition: int) -> None:
    problems = (fault_problem(seed, twin, condition) for seed in range(20))
    assert next((problem for problem in problems if problem), "") != ""


def test_checkers_catch_what_early_acknowledgements_lose() -> None:
    """Without the invariants, by the history alone, as it would be on a real system."""
    overrides, faults = CONDITIONS[3]
    for seed in range(30):
        config = configured(seed, {"protocol": PROTOCOL}, *overrides)
        try:
            problem = simulate(config, machine=Unchecked, faults=faults).problem
        except AssertionError:
            continue  # what a committed entry's change looks like inside the machine
        if "read" in problem:
            return
    pytest.fail("no seed showed a lost write to a reader")


class Unchecked(AcknowledgesEarly):
    """Says nothing of its broken invariants."""

    def check(self) -> None:
        pass
