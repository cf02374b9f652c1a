"""Raft under faults: the safety properties of figure 3, and what the checkers alone catch."""

from __future__ import annotations

from collections import Counter

import pytest
from machine_bench import Bench
from raft_profiles import PROFILES
from raft_watch import RaftWatch, Storm
from sim_faults import configured, simulate
from twins_raft import AcknowledgesEarly

from orchestrator.core.randomness import scalar_stream
from orchestrator.protocols import _raft_replica
from orchestrator.protocols.raft import Params, Raft

IMPATIENT = Params(election_timeout=100, heartbeat=50, in_flight=2)


def storm_problem(seed: int, nodes: int = 3) -> str:
    """What a storm shows; empty where all is well."""
    watch = RaftWatch()
    try:
        bench = Bench(Raft, IMPATIENT, nodes, seed=seed, batch_max=2, watch=watch)
        Storm(bench, scalar_stream(seed, "storm")).rage(60)
        watch.finish()
    except AssertionError as error:
        return f"seed {seed}: {error}"
    return ""


@pytest.mark.parametrize("profile", PROFILES)
def test_raft_is_safe_under_faults(profile: str) -> None:
    assert [PROFILES[profile].problem(seed) for seed in range(2)] == ["", ""]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("profile", PROFILES)
def test_raft_is_safe_under_many_faults(profile: str) -> None:
    assert [PROFILES[profile].problem(seed) for seed in range(2, 102)] == [""] * 100


@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_raft_is_safe_in_storms(nodes: int) -> None:
    assert {storm_problem(seed, nodes=nodes) for seed in range(30)} == {""}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("nodes", [3, 4, 5])
def test_raft_is_safe_in_many_storms(nodes: int) -> None:
    assert {storm_problem(seed, nodes=nodes) for seed in range(3000)} == {""}


@pytest.mark.parametrize("profile", ["plain", "reordering", "members"])
def test_dropping_the_prefix_keeps_raft_safe(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_raft_replica, "_DROP_AT_LEAST", 5)
    assert PROFILES[profile].problem(3) == ""
    assert storm_problem(1) == ""


def test_faults_disturb_and_the_load_goes_on() -> None:
    outcome = PROFILES["plain"].run(1)
    kinds = [event.kind for event in outcome.cluster.events]
    assert kinds.count("crash") == kinds.count("restart") > 3
    ok, _, unknown = [(outcome.history.outcome == number).sum() for number in range(3)]
    assert ok > 300
    assert unknown > 5


def test_the_profiles_reach_what_they_are_for() -> None:
    reached: Counter[str] = Counter()
    for profile in ("lease", "snapshots", "members", "short_reigns"):
        for seed in range(2):
            for node in PROFILES[profile].run(seed).cluster.nodes:
                reached.update(node.shell.marks)
    wanted = "election truncation snapshot_taken snapshot_installed membership_change transfer"
    assert [what for what in (*wanted.split(), "read_index_round") if reached[what] < 2] == []


def test_checkers_catch_what_early_acknowledgements_lose() -> None:
    """Without the invariants, by the history alone, as it would be on a real system."""
    profile = PROFILES["crashes"]
    for seed in range(30):
        config = configured(seed, profile.system, *profile.overrides)
        try:
            problem = simulate(config, machine=Unchecked, faults=profile.faults).problem
        except AssertionError:
            continue  # what a committed entry's change looks like inside the machine
        if "read" in problem:
            return
    pytest.fail("no seed showed a lost write to a reader")


class Unchecked(AcknowledgesEarly):
    """Says nothing of its broken invariants."""

    def check(self) -> None:
        pass
