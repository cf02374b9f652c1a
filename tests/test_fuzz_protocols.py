"""Every protocol keeps what it claims under faults drawn by seeds, and what the seeds reach."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from orchestrator.core import portions
from orchestrator.core.registry import Family, plugins
from orchestrator.core.units import format_duration, parse_duration_ns
from orchestrator.fuzz import Findings, Wanted, fuzz, simulate_seeds
from orchestrator.fuzzing.draw import draw
from orchestrator.fuzzing.profiles import PROFILES
from orchestrator.fuzzing.scenario import Scenario
from orchestrator.fuzzing.simulation import simulate

REPLICATED = [
    *(name for name in plugins(Family.PROTOCOL) if name != "unreplicated"),
    *plugins(Family.TRANSACTIONS),
]
PATTERNS = list(plugins(Family.PATTERN))
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
    "cache_aside": {"late_filling"},
    "read_through": {"joined_fetch", "overtaken_fetch", "early_refresh"},
    "write_around": {"joined_fetch", "overtaken_fetch", "overlapping_writes"},
    "write_back": {"absorbed_write"},
    "write_through": {"joined_fetch", "overtaken_fetch", "overlapping_writes"},
    "raft": {"election", "truncation", "snapshot_installed", "membership_change", "transfer"},
}


def told(findings: Findings) -> list[str]:
    return [
        f"seed {failure.seed}: {failure.violation.property}: {failure.violation.explanation}"
        for failure in findings.failures
    ]


@pytest.mark.parametrize("protocol", REPLICATED)
def test_some_seeds_of_every_profile(protocol: str) -> None:
    findings = Findings()
    for profile in PROFILES:
        seeds = 6 if profile == "mixed" else 2
        findings.add(simulate_seeds(Wanted(protocol, profile), range(seeds)))
    assert told(findings) == []
    assert findings.weak == 0
    assert REACHED.get(protocol, set()) <= set(findings.marks)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_seeds_of_cache_tiers(pattern: str) -> None:
    findings = simulate_seeds(Wanted(pattern), range(10))
    assert told(findings) == []
    assert REACHED[pattern] <= set(findings.marks)


@pytest.mark.parametrize("protocol", REPLICATED)
def test_seeds_whose_messages_are_cut_into_many(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portions, "PORTION_BYTES", 1500)
    findings = simulate_seeds(Wanted(protocol, "recovery"), range(2))
    assert told(findings) == []
    assert findings.operations > 0


def insisting(scenario: Scenario) -> Scenario:
    """The scenario with clients that ask again, and several nodes at once."""

    def part(of: int) -> str:
        return format_duration(max(1000, timeout_ns // of // 1000 * 1000))

    timeout_ns = parse_duration_ns(scenario.client["timeout"])
    client = {
        "attempt_timeout": part(4),
        "retry": {"attempts": 4, "backoff": {"base": part(50), "max": part(10)}},
        "hedge": {"after": part(10)},
    }
    return msgspec.structs.replace(scenario, client=dict(scenario.client) | client)


@pytest.mark.parametrize("protocol", REPLICATED)
def test_operations_that_are_sent_several_times_are_applied_once(protocol: str) -> None:
    for seed in range(2):
        outcome = simulate(insisting(draw(protocol, seed)))
        assert outcome.violation is None, f"seed {seed}: {outcome.violation.explanation}"
        assert outcome.operations > 100


@pytest.mark.long
@pytest.mark.serial
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("protocol", [*REPLICATED, *PATTERNS])
def test_two_thousand_seeds(protocol: str, tmp_path: Path) -> None:
    findings, _ = fuzz(Wanted(protocol), range(2000), folder=tmp_path)
    assert told(findings) == []
    assert findings.seeds == 2000
