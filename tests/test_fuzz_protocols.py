"""Every protocol keeps what it claims under faults drawn by seeds, and what the seeds reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core import portions
from orchestrator.core.registry import Family, plugins
from orchestrator.fuzz import Findings, Wanted, fuzz, simulate_seeds
from orchestrator.fuzzing.profiles import PROFILES

REPLICATED = [
    *(name for name in plugins(Family.PROTOCOL) if name != "unreplicated"),
    *plugins(Family.TRANSACTIONS),
]
# What the seeds of each have to reach, or they show little.
REACHED = {
    "abd": {"write_back"},
    "causal": {"dependency_wait", "session_wait", "repair"},
    "chain": {"view_change", "truncation", "snapshot_installed"},
    "craq": {"view_change", "dirty_read", "snapshot_installed"},
    "epaxos": {"slow_path", "recovery", "cycle"},
    "gossip": {"repair", "repeat"},
    "multi_paxos": {"leader", "view_change"},
    "primary_backup": {"view_change", "snapshot_installed"},
    "quorum": {"repair", "hint_delivered", "siblings", "stand_in"},
    "raft": {"election", "truncation", "snapshot_installed", "membership_change", "transfer"},
}


def told(findings: Findings) -> list[str]:
    return [
        f"seed {failure.seed}: {failure.violation.property}: {failure.violation.explanation}"
        for failure in findings.failures
    ]


@pytest.mark.parametrize("protocol", REPLICATED)
def test_thirty_seeds(protocol: str) -> None:
    findings = Findings()
    for profile in PROFILES:
        seeds = 10 if profile == "mixed" else 4
        findings.add(simulate_seeds(Wanted(protocol, profile), range(seeds)))
    assert told(findings) == []
    assert findings.weak == 0
    assert REACHED.get(protocol, set()) <= set(findings.marks)


@pytest.mark.parametrize("protocol", REPLICATED)
def test_seeds_whose_messages_are_cut_into_many(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portions, "PORTION_BYTES", 1500)
    findings = simulate_seeds(Wanted(protocol, "recovery"), range(2))
    assert told(findings) == []
    assert findings.operations > 0


@pytest.mark.long
@pytest.mark.serial
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("protocol", REPLICATED)
def test_two_thousand_seeds(protocol: str, tmp_path: Path) -> None:
    findings, _ = fuzz(Wanted(protocol), range(2000), folder=tmp_path)
    assert told(findings) == []
    assert findings.seeds == 2000
