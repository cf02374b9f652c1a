"""Primary-backup: what it claims, and failover step by step."""

from __future__ import annotations

from typing import Any

import pytest
from machine_bench import Bench
from sim_faults import configured, problem_of, simulate
from view_bench import (
    HEARTBEAT_NS,
    LEASE_NS,
    QUICK,
    cluster_of,
    members,
    pass_time,
    read,
    without,
    write,
)

from orchestrator.core import levels
from orchestrator.core.machine import OK, UNKNOWN, ClaimContext
from orchestrator.core.units import NS_PER_MS
from orchestrator.core.verdict import INVALID, check
from orchestrator.protocols.primary_backup import Params, PrimaryBackup


def cluster(nodes: int = 3, **choices: Any) -> Bench:
    return cluster_of(PrimaryBackup, Params, nodes, **choices)


# --- claims -----------------------------------------------------------------------------


def claimed(sticky: bool, mode: str = "sync", replicas: int = 3, **choices: Any) -> set[str]:
    context = ClaimContext(replicas, sticky, "memory")
    return set(PrimaryBackup.claims(Params(mode=mode, **choices), context))


def test_what_it_claims_with_failover() -> None:
    for mode in ("sync", "semi_sync"):
        assert claimed(False, mode) == {levels.LINEARIZABLE}
        waiting = claimed(False, mode, read_from="any", session_wait=True)
        assert waiting == {levels.SEQUENTIAL}
        # A session moves on when its node is put out, and may see less there.
        assert claimed(True, mode, read_from="any") == {levels.EVENTUAL}
    assert claimed(True, "async") == {levels.EVENTUAL}
    assert claimed(True, "async", 1, read_from="any") == {levels.LINEARIZABLE}


def test_what_it_claims_without_failover() -> None:
    for mode in ("sync", "semi_sync", "async"):
        assert claimed(False, mode, failover=False) == {levels.LINEARIZABLE}
        waiting = claimed(False, mode, failover=False, read_from="any", session_wait=True)
        assert waiting == {levels.SEQUENTIAL}
        assert claimed(False, mode, failover=False, read_from="any") == {levels.EVENTUAL}
    sticky = {levels.EVENTUAL, levels.MONOTONIC_READS}
    assert claimed(True, "async", failover=False, read_from="any") == sticky
    assert claimed(True, failover=False, read_from="any") == sticky | {levels.READ_YOUR_WRITES}


def test_why_a_level_is_not_claimed() -> None:
    context = ClaimContext(3, False, "fsync")
    lossy = PrimaryBackup.why_not(Params(mode="async"), context, levels.LINEARIZABLE)
    assert "1 of 3 nodes" in lossy
    forgetful = ClaimContext(3, False, "memory", restarts=True)
    assert not PrimaryBackup.claims(Params(), forgetful)
    assert not PrimaryBackup.read_levels(Params(), forgetful)
    assert "durability: memory" in PrimaryBackup.why_not(Params(), forgetful, levels.LINEARIZABLE)
    assert PrimaryBackup.why_not(Params(), context, levels.LINEARIZABLE) == ""


@pytest.mark.parametrize(
    ("mode", "level"),
    [("sync", "linearizable"), ("async", "read_your_writes"), ("async", "monotonic_reads")],
)
def test_what_is_not_claimed_does_not_hold(mode: str, level: str) -> None:
    """Otherwise the tests of claims would show little."""
    system = {"protocol": {"name": "primary_backup", "mode": mode, "read_from": "any"}}
    config = configured(1, system | {"replicas": 3}, "client.sticky=false")
    assert check(simulate(config).history, level).verdict == INVALID


# --- failover ---------------------------------------------------------------------------


def test_a_backup_takes_over_with_all_that_was_answered() -> None:
    bench = cluster()
    first = write(bench, 0, 1)
    assert bench.replies[first].outcome == OK
    bench.crash(0)
    pass_time(bench, 2 * LEASE_NS)
    assert members(bench) == [1, 2]
    assert bench.machines[1].role == "primary"
    assert bench.replies[read(bench, 1)].value == b"1"
    assert bench.redirects[read(bench, 2)].node == 1
    assert bench.replies[write(bench, 1, 2)].version == 2


def test_a_primary_that_was_cut_off_stops_before_its_successor_serves() -> None:
    bench = cluster()
    write(bench, 0, 1)
    # The primary hears nobody; clients still reach it.
    while members(bench) == [0, 1, 2]:
        pass_time(bench, HEARTBEAT_NS, without(0))
    assert bench.now_ns > LEASE_NS
    late = read(bench, 0, without(0))
    assert late not in bench.replies
    pass_time(bench, HEARTBEAT_NS, without(0))
    assert bench.redirects[late].node == -1, "the client should ask somebody else"


def test_what_a_deposed_primary_could_not_pass_on_is_unknown_and_gone() -> None:
    bench = cluster()
    write(bench, 0, 1)
    lost = write(bench, 0, 2, without(0))
    pass_time(bench, 3 * LEASE_NS, without(0))
    assert bench.replies[write(bench, 1, 3)].version == 2
    pass_time(bench, 2 * LEASE_NS)
    assert bench.replies[lost].outcome == UNKNOWN
    assert members(bench) == [1, 2, 0]
    assert [machine.contents()[b"k"].value for machine in bench.machines[:3]] == [b"3"] * 3


def test_a_node_that_was_away_for_long_is_sent_the_state() -> None:
    bench = cluster()
    bench.crash(2)
    pass_time(bench, 2 * LEASE_NS)
    assert members(bench) == [0, 1]
    for number in range(1, 60):
        write(bench, 0, number)
    bench.restart(2)
    bench.deliver()
    pass_time(bench, 2 * LEASE_NS)
    assert members(bench) == [0, 1, 2]
    assert bench.machines[2].contents() == bench.machines[0].contents()
    # Its record stands for all before it, and the table of sessions came along.
    bench.crash(0)
    bench.crash(1)
    pass_time(bench, 2 * LEASE_NS)
    assert members(bench) == [2]
    assert bench.replies[write(bench, 2, 59)].version == 59


def test_semi_sync_goes_on_with_the_most_advanced() -> None:
    bench = cluster(mode="semi_sync")
    write(bench, 0, 1)
    answered = write(bench, 0, 2, without(1))
    assert bench.replies[answered].outcome == OK
    bench.crash(0)
    pass_time(bench, 3 * LEASE_NS)
    assert members(bench) == [2, 1]
    assert bench.replies[read(bench, 2)].value == b"2"


def test_semi_sync_waits_where_two_of_three_are_gone() -> None:
    bench = cluster(mode="semi_sync")
    assert bench.replies[write(bench, 0, 1, without(1))].outcome == OK
    bench.crash(0)
    bench.crash(2)
    pass_time(bench, 4 * LEASE_NS)
    assert members(bench) == [0, 1, 2], "the one that is left may lack a write"
    bench.restart(2)
    pass_time(bench, 3 * LEASE_NS)
    assert members(bench) == [2, 1]
    assert bench.replies[read(bench, 2)].value == b"1"


def test_async_goes_on_with_whoever_is_left() -> None:
    bench = cluster(mode="async")
    assert bench.replies[write(bench, 0, 1, without(1, 2))].outcome == OK
    bench.crash(0)
    pass_time(bench, 3 * LEASE_NS)
    assert members(bench) == [1, 2]
    assert bench.replies[read(bench, 1)].version == 0, "the write is lost"
    write(bench, 1, 2)
    bench.restart(0)
    pass_time(bench, 3 * LEASE_NS)
    assert members(bench) == [1, 2, 0]
    assert [machine.contents()[b"k"].value for machine in bench.machines[:3]] == [b"2"] * 3


def test_only_members_of_the_last_view_may_serve_after_a_crash_of_all() -> None:
    bench = cluster()
    bench.crash(2)
    pass_time(bench, 2 * LEASE_NS)
    write(bench, 0, 1)
    bench.crash(0)
    bench.crash(1)
    bench.restart(2)
    pass_time(bench, 4 * LEASE_NS)
    assert members(bench) == [0, 1]
    assert read(bench, 2) not in bench.replies
    bench.restart(1)
    pass_time(bench, 4 * LEASE_NS)
    assert members(bench) == [1, 2]
    assert bench.replies[read(bench, 1)].value == b"1"


def test_without_failover_there_is_no_authority_and_node_0_is_waited_for() -> None:
    bench = cluster(failover=False)
    assert len(bench.machines) == 3
    write(bench, 0, 1)
    assert not bench.timers or all(timer == "resend" for _, timer in bench.timers)
    bench.crash(0)
    assert bench.redirects[write(bench, 1, 2)].node == 0
    bench.restart(0)
    bench.deliver()
    assert bench.replies[read(bench, 0)].value == b"1"


def test_a_read_of_the_primary_waits_for_what_a_backup_showed() -> None:
    """Without failover a backup shows what another one does not have yet."""
    bench = cluster(failover=False, read_from="any", session_wait=True)
    write(bench, 0, 1, without(1))
    shown = bench.replies[read(bench, 2)]
    assert (shown.value, shown.version) == (b"1", 1)
    asked = levels.CODES[levels.LINEARIZABLE]
    assert bench.replies[read(bench, 0, level=asked)].value is None
    waiting = read(bench, 0, level=asked, seen=shown.version)
    assert waiting not in bench.replies
    pass_time(bench, LEASE_NS)
    assert bench.replies[waiting].value == b"1"


def test_a_read_of_a_backup_waits_for_what_its_session_has_seen() -> None:
    bench = cluster()
    asked = levels.CODES[levels.SEQUENTIAL]
    version = bench.replies[write(bench, 0, 1)].version
    waiting = read(bench, 1, level=asked, seen=version)
    assert waiting not in bench.replies, "it does not know yet that this is committed"
    pass_time(bench, LEASE_NS)
    assert bench.replies[waiting].value == b"1"
    assert bench.replies[read(bench, 2, level=levels.CODES[levels.EVENTUAL])].outcome == OK


@pytest.mark.parametrize("mode", ["sync", "semi_sync", "async"])
def test_claims_hold_under_crashes_and_cuts(mode: str) -> None:
    for seed in range(4):
        system = {"protocol": {"name": "primary_backup", "mode": mode} | QUICK, "replicas": 3}
        config = configured(seed, system, "client.sticky=false", "duration=1s")
        assert problem_of(config, faults={"gap_ns": 40 * NS_PER_MS}) == ""
