"""Costs are found again from what processes used, and profiles are files that say what is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.analysis.calibration import (
    CALL,
    CLIENT,
    MESSAGE,
    READ,
    SLEEP,
    SYNC,
    TICK,
    TIMER,
    WRITE,
    Observation,
    fit_costs,
)
from orchestrator.analysis.resources import utilisations
from orchestrator.config.load import load_mapping
from orchestrator.config.profile import read_profile, write_profile
from orchestrator.config.render import config_hash
from orchestrator.core.host_profile import HostProfile, ProtocolCosts
from orchestrator.core.randomness import block_stream
from orchestrator.core.record import STORAGE, RunRecord
from orchestrator.errors import ConfigError
from orchestrator.plan import plan
from orchestrator.runtimes import simulated
from orchestrator.runtimes._entries import entries_of

LOOP_NS = 18_000.0
TRUE = {
    SLEEP: 20_000, TICK: 11_000, CALL: 6_000, TIMER: 9_000, CLIENT: 8_000, READ: 5_000,
    WRITE: 7_000, MESSAGE: 30_000, SYNC: 120_000,
}  # fmt: skip
PROFILE = HostProfile(
    host="h",
    cpu="a cpu",
    measured_utc="2026-01-31T12:00:00Z",
    cores=2,
    background=0.02,
    loop=(17_000, 18_000, 30_000),
    wake=(30_000, 40_000, 60_000),
    wake_deep=(50_000, 90_000),
    timer=9_000,
    fsync=(1_000_000, 2_000_000),
    protocols={
        "unreplicated": ProtocolCosts(20_000, 9_000, 2_000, 6_000, 8_000, 5_000, 7_000, 0, 0),
        "raft": ProtocolCosts(20_000, 9_000, 2_000, 6_000, 8_000, 6_000, 9_000, 30_000, 2_000),
        "epaxos": ProtocolCosts(20_000, 9_000, 2_000, 6_000, 8_000, 8_000, 11_000, 20_000, 0),
    },
)


def observations(noise: float, outliers: int = 0) -> list[Observation]:
    """Processes that did different things, whose CPU time is off by so much."""
    chance = block_stream(1, "observations")
    found = []
    for number in range(60):
        own = ((CLIENT,), (READ, WRITE, MESSAGE), (READ, WRITE, MESSAGE, SYNC))[number % 3]
        names = (SLEEP, TICK, CALL, TIMER, *own)
        counts = {name: float(chance.integers(10, 10_000)) for name in names}
        exact_ns = sum(counts[name] * TRUE[name] for name in names)
        factor = 1 + noise * float(chance.standard_normal())
        # Half of them on cores that are half as fast.
        slow = 1 + number // 3 % 2
        found.append(Observation(exact_ns * factor * slow, LOOP_NS * slow, counts))
    for number in range(outliers):
        one = found[number * 7]
        found[number * 7] = dataclasses.replace(one, cpu_ns=one.cpu_ns * 3)
    return [each.at(LOOP_NS) for each in found]


def test_exact_costs_are_found_exactly() -> None:
    found = fit_costs(observations(0.0))
    assert found.residual < 1e-3 and found.timer_ns == pytest.approx(TRUE[TIMER], rel=0.01)
    assert found.sync_ns == pytest.approx(TRUE[SYNC], rel=0.01)
    for name, cost_ns in vars(found.costs).items():
        assert cost_ns == pytest.approx(TRUE.get(name, 0), rel=0.01), name


def test_noise_and_processes_that_were_disturbed_move_them_little() -> None:
    found = fit_costs(observations(0.05, outliers=4))
    assert found.costs.sleep == pytest.approx(TRUE[SLEEP], rel=0.25)
    assert found.costs.call == pytest.approx(TRUE[CALL], rel=0.4)
    assert found.costs.message == pytest.approx(TRUE[MESSAGE], rel=0.25)
    assert found.residual > 0.1


def test_nothing_observed_gives_no_costs() -> None:
    with pytest.raises(ValueError, match="nothing was observed"):
        fit_costs([])


def test_messages_bring_what_is_in_their_lists() -> None:
    class Several(msgspec.Struct):
        term: int
        keys: list[int]
        values: list[bytes]

    class Empty(msgspec.Struct):
        term: int

    assert entries_of(Several(1, [1, 2], [b"x", b"y"])) == 4
    assert entries_of(Empty(1)) == entries_of(("no", [1, 2])) == 0


# --- files ------------------------------------------------------------------------------


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = str(tmp_path / "deeper" / "h.yaml")
    write_profile(PROFILE, path)
    assert read_profile(path) == PROFILE


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (None, "hosts.profile", "No such file"),
        ("cores: 0", "cores", "at least 1"),
        ("cores: 2", "loop", "at least one duration"),
        (
            "loop: [18us]\nwake: [1us]\nwake_deep: [1us]\nfsync: [1us]",
            "protocols",
            "at least one",
        ),
        ("kores: 2", "kores", "unknown"),
        ("[1, 2]", None, "mapping"),
    ],
)
def test_a_profile_that_is_none_says_where(
    tmp_path: Path, text: str | None, path: str | None, message: str
) -> None:
    file = tmp_path / "p.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_profile(str(file))
    if path is not None:
        assert path in str(caught.value.path)


def test_protocols_that_were_not_measured_are_taken_for_the_median() -> None:
    assert PROFILE.costs_of("raft").message == 30_000
    # Of those that have peers, too, and however dear the messages of one are.
    dear = ProtocolCosts(20_000, 9_000, 2_000, 6_000, 8_000, 7_000, 10_000, 500_000, 90_000, 0)
    profile = dataclasses.replace(PROFILE, protocols=PROFILE.protocols | {"quorum": dear})
    median = ProtocolCosts(20_000, 9_000, 2_000, 6_000, 8_000, 7_000, 10_000, 30_000, 2_000)
    assert profile.costs_of("chain") == median


# --- runs -------------------------------------------------------------------------------


def mapping(profile: str | None, **changes: Any) -> dict[str, Any]:
    return {
        "experiment": "hosted",
        "runtime": "sim",
        "hosts": {"profile": profile},
        "system": {
            "protocol": {"name": "raft"},
            "replicas": 3,
            "node": {"costs": "measured"},
        },
        "workload": {"mix": "a", "keys": 100},
        "arrival": {"name": "closed", "sessions": 16},
        "warmup": "100ms",
        "duration": "200ms",
    } | changes


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = str(tmp_path / "h.yaml")
    write_profile(PROFILE, path)
    return path


def test_measured_costs_need_a_profile_in_the_simulator(profile: str) -> None:
    with pytest.raises(ConfigError, match="no profile") as caught:
        plan(load_mapping(mapping(None)))
    assert "calibrate" in str(caught.value.hint)
    record = simulated.run(plan(load_mapping(mapping(profile))))
    assert len(record.history) > 500
    usage = record.nodes[0].usage
    assert usage is not None and usage.cpu_ns == record.nodes[0].process_cpu_ns
    # The processes cannot have used more than the cores have.
    used_ns = sum(node.process_cpu_ns for node in record.nodes) + record.clients[0].process_cpu_ns
    assert 0.3 < used_ns / (2 * 200e6) < 1
    assert record.host_busy == pytest.approx(used_ns / (2 * 200e6) + 0.02)
    shares = utilisations(record, "measured")
    assert shares["leader.cpu"] == pytest.approx(usage.cpu_ns / 200e6)


def test_each_process_may_have_a_core_as_fast_as_its_own_loop(profile: str) -> None:
    def used(loops: list[list[str]]) -> list[int]:
        arrival = {"name": "poisson", "rate": "2000/s"}
        changes = {"hosts": {"profile": profile, "loops": loops}, "arrival": arrival}
        record = simulated.run(plan(load_mapping(mapping(None, **changes))))
        every = [each.usage for each in record.nodes] + [each.usage for each in record.clients]
        return [each.cpu_ns for each in every if each is not None]

    usual, slow = ["18us"], ["36us"]
    alike, same, one_slow = used([usual]), used([usual] * 4), used([usual, slow, usual, usual])
    assert alike == same
    # Busier, it goes round less often: not quite twice as much.
    assert [round(b / a, 1) for a, b in zip(same, one_slow, strict=True)] == [
        pytest.approx(each, abs=0.25) for each in (1, 1.9, 1, 1)
    ]
    with pytest.raises(ConfigError, match="3 lists for 4 processes") as caught:
        used([usual, slow, usual])
    assert caught.value.path == "hosts.loops" and "3 of machines" in str(caught.value.hint)


def test_no_part_of_an_operation_takes_less_than_nothing(profile: str) -> None:
    """Starts that are due while the client begins others, too."""
    load = {"arrival": {"name": "poisson", "rate": "6000/s"}, "warmup": "20ms"}
    record = simulated.run(plan(load_mapping(mapping(profile, **load))))
    spans = record.clients[0].spans
    assert spans is not None and len(spans) > 50
    assert (spans.parts_ns >= 0).all() and (spans.parts_ns[:, 0] > 0).any()


def test_a_hosted_run_is_the_same_again_and_the_profile_counts(
    profile: str, tmp_path: Path
) -> None:
    config = load_mapping(mapping(profile))
    one, other = (simulated.run(plan(config)) for _ in range(2))
    assert (one.history.returned_ns == other.history.returned_ns).all()
    before = config_hash(config)
    costs = dataclasses.replace(PROFILE.costs_of("raft"), client=80_000)
    slower = dataclasses.replace(PROFILE, protocols={"raft": costs})
    write_profile(slower, profile)
    assert config_hash(config) != before
    assert len(simulated.run(plan(config)).history) < 0.7 * len(one.history)


def test_a_start_of_its_own_costs_the_client_more(profile: str, tmp_path: Path) -> None:
    dear = dataclasses.replace(PROFILE.costs_of("raft"), start=50_000)
    other = str(tmp_path / "dear.yaml")
    write_profile(dataclasses.replace(PROFILE, protocols={"raft": dear}), other)

    def used_ns(file: str, **changes: Any) -> tuple[int, int]:
        record = simulated.run(plan(load_mapping(mapping(file, **changes))))
        within = record.history.returned_ns >= record.warmup_ns
        return record.clients[0].process_cpu_ns, int(within.sum())

    rated = {"arrival": {"name": "constant", "rate": "1000/s"}}
    (cheap_ns, count), (dear_ns, _) = (used_ns(file, **rated) for file in (profile, other))
    assert dear_ns - cheap_ns == pytest.approx(50_000 * count, rel=0.2)
    # What follows on an answer does not.
    assert used_ns(profile) == used_ns(other)


def test_more_hosts_carry_more(profile: str) -> None:
    busy = {"arrival": {"name": "closed", "sessions": 128}}
    counts = [
        len(simulated.run(plan(load_mapping(mapping(profile, hosts=hosts, **busy)))).history)
        for hosts in (
            {"profile": profile, "count": 1},
            {"profile": profile, "count": 4},
        )
    ]
    assert counts[1] > 1.05 * counts[0]


@pytest.mark.parametrize("pin", [False, True])
def test_a_profile_goes_with_faults_and_modelled_costs(profile: str, pin: bool) -> None:
    node = {"costs": "modelled", "cpu": {"read": "1ms", "write": "1ms"}}
    node["storage"] = {"durability": "fsync"}
    changes: dict[str, Any] = {
        "hosts": {"profile": profile, "pin": pin},
        "system": mapping(profile)["system"] | {"node": node, "network": {"delay": "200us"}},
        "arrival": {"name": "poisson", "rate": "200/s"},
        "duration": "2s",
        "faults": [{"name": "crash", "target": "leader", "at": "600ms", "restart_after": "200ms"}],
    }
    record = simulated.run(plan(load_mapping(mapping(profile, **changes))))
    assert [strike.name for strike in record.faults] == ["crash"]
    ok = (record.history.outcome == 0).mean()
    assert 0.6 < ok <= 1
    assert {event.kind for event in record.events} >= {"crash", "restart"}


def test_faults_of_disks_strike_on_simulated_hosts_too(profile: str) -> None:
    node = {"costs": "measured", "storage": {"durability": "fsync"}}
    system = {"protocol": {"name": "unreplicated"}, "replicas": 1, "node": node}

    def record(**fault: Any) -> RunRecord:
        faults = [fault | {"target": 0, "at": "150ms", "lasts": "100ms"}] if fault else []
        return simulated.run(plan(load_mapping(mapping(profile, system=system, faults=faults))))

    def done(found: RunRecord) -> int:
        """While the fault lasts."""
        returned_ns = found.history.returned_ns
        return int(((returned_ns > 160_000_000) & (returned_ns < 250_000_000)).sum())

    usual = record()
    assert usual.nodes[0].usage is not None and usual.nodes[0].usage.syncs > 50
    slow = record(name="slow_storage", factor=20.0)
    assert done(slow) < 0.5 * done(usual)
    failed = record(name="failing_storage", share=1.0)
    assert [event.kind for event in failed.events if event.detail == "a sync failed"] == [STORAGE]
