"""Every fault in the simulator: it strikes, has its effect, and all is well in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

from orchestrator.analysis.durability import survival
from orchestrator.analysis.summary import digest, summarise
from orchestrator.config.load import ConfigSource, load, load_mapping
from orchestrator.core.faults import leads
from orchestrator.core.history import PHASE_FINAL, PHASE_RUN
from orchestrator.core.machine import OK, UNKNOWN
from orchestrator.core.record import RunRecord
from orchestrator.core.registry import Family, plugins
from orchestrator.core.units import NS_PER_S
from orchestrator.core.verdict import VALID
from orchestrator.errors import ConfigError, InputError
from orchestrator.plan import plan
from orchestrator.run import execute, judge
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._simulated_faults import FrailCluster
from orchestrator.sweep import variants

# What shows that a fault has an effect, where its defaults show little.
STRONG: dict[str, dict[str, Any]] = {
    "bandwidth": {"cap": "2KiB/s"},
    "chaos": {"mix": [{"name": "crash"}, {"name": "pause", "weight": 2, "lasts": "500ms"}]},
    "clock": {"offset": "10s", "drift": 0.2},
    "delay": {"clients": True},
    "duplication": {"share": 1.0},
    "failing_storage": {"share": 1.0},
    "jitter": {"clients": True},
    "loss": {"share": 0.5, "clients": True},
    "slow": {"factor": 50},
}
HARMLESS = ("clock", "duplication", "reordering", "jitter")
"""Raft bears these without a late answer, or nearly."""
SYSTEM = {
    "protocol": {"name": "raft", "election_timeout": "200ms", "heartbeat": "30ms"},
    "replicas": 3,
    "node": {
        "cpu": {"read": "50us", "write": "50us", "message": "10us"},
        "storage": {"durability": "fsync", "sync": {"name": "exponential", "mean": "1ms"}},
    },
    "network": {"delay": {"name": "exponential", "mean": "500us"}},
}


def made(*faults: dict[str, Any], **changes: Any) -> Parts:
    """A simulated run under faults."""
    config = {
        "experiment": "faults",
        "runtime": "sim",
        "system": SYSTEM,
        "workload": {"name": "ycsb", "mix": "a", "keys": 200, "value_size": "8B"},
        "arrival": {"name": "poisson", "rate": "300/s"},
        "clients": 2,
        "client": {"timeout": "500ms"},
        "warmup": "1s",
        "duration": "6s",
        "faults": list(faults),
    }
    return plan(load_mapping(config | changes))


def summary_of(parts: Parts, record: RunRecord) -> dict[str, Any]:
    verdict = judge(parts, record)
    return summarise(record, parts.config, verdict, run_id="", config_hash="", results="")


@pytest.mark.parametrize("name", [name for name in plugins(Family.FAULT) if name != "crash_client"])
def test_a_fault_of_the_leader_has_an_effect_and_breaks_no_claim(name: str) -> None:
    parts = made({"name": name, "target": "leader", "at": "3s"} | STRONG.get(name, {}))
    record = execute(parts)
    verdict = judge(parts, record)
    assert verdict.verdict == VALID, [each.explanation for each in verdict.verdicts]
    struck = [(each.name.partition(":")[0], each.at_ns) for each in record.faults]
    assert struck == [(name, 3 * NS_PER_S)]
    assert record.faults[0].until_ns is not None
    summary = summary_of(parts, record)
    assert summary["faults"][0]["lost_acknowledged_writes"] == 0
    if name not in HARMLESS:
        assert summary["faults"][0]["goodput_availability"] < 0.999
    well = (record.history.intended_ns > 6 * NS_PER_S) & (record.history.phase == PHASE_RUN)
    assert (record.history.outcome[well] == OK).mean() > (0.9 if name != "chaos" else 0.5)


@pytest.mark.parametrize("name", plugins(Family.PROTOCOL))
@pytest.mark.parametrize("shards", [1, 2])
def test_a_protocol_says_whether_one_node_leads(name: str, shards: int) -> None:
    replicas = 1 if name == "unreplicated" else 3
    system = {"protocol": {"name": name}, "replicas": replicas, "shards": shards}
    parts = made(system=system, warmup="0s", duration="100ms")
    record = execute(parts)
    assert any(leads(node.role) for node in record.nodes) == parts.led


def test_the_same_seed_strikes_alike() -> None:
    fault = {"name": "power_loss", "target": "any", "every": {"name": "exponential", "mean": "1s"}}
    first, second = (execute(made(fault)) for _ in range(2))
    assert first.faults == second.faults and len(first.faults) > 2
    assert digest(first) == digest(second)
    other = execute(made(fault, seed=2))
    assert [each.at_ns for each in other.faults] != [each.at_ns for each in first.faults]


def test_everything_written_is_read_back_after_the_load() -> None:
    record = execute(made({"name": "crash", "target": "leader", "at": "3s"}))
    history = record.history
    final = history.phase == PHASE_FINAL
    written = numpy.unique(history.key[(history.kind == 1) & ~final])
    assert sorted(set(history.key[final & (history.outcome == OK)])) == sorted(written)
    assert history.invoked_ns[final].min() > record.end_ns
    assert survival(history).lost == ()


def test_a_log_that_is_not_synced_loses_what_it_acknowledged() -> None:
    storage = SYSTEM["node"]["storage"] | {"durability": "async"}  # type: ignore[index]
    system = SYSTEM | {
        "protocol": {"name": "unreplicated"},
        "replicas": 1,
        "node": SYSTEM["node"] | {"storage": storage},  # type: ignore[operator]
    }
    fault = {"name": "power_loss", "target": "0", "at": "3s"}
    parts = made(fault, system=system, workload={"name": "ycsb", "mix": "a", "keys": 10_000})
    found = summary_of(parts, execute(parts))
    assert found["faults"][0]["lost_acknowledged_writes"] > 50
    parts = made(fault | {"name": "crash"}, system=system)
    assert summary_of(parts, execute(parts))["faults"][0]["lost_acknowledged_writes"] == 0


def test_a_client_that_dies_begins_anew() -> None:
    parts = made({"name": "crash_client", "target": "1", "at": "3s", "restart_after": "1s"})
    record = execute(parts)
    assert judge(parts, record).verdict == VALID
    history = record.history
    mine = history.client == 1
    dead = (history.intended_ns > 3 * NS_PER_S) & (history.intended_ns < 4 * NS_PER_S)
    assert not (mine & dead).any() and (~mine & dead).any()
    before = set(history.session[mine & (history.intended_ns < 3 * NS_PER_S)])
    after = set(history.session[mine & (history.intended_ns > 4 * NS_PER_S)])
    assert after and not before & after


def test_a_machine_that_is_lost_stays_away() -> None:
    record = execute(made({"name": "lose_machine", "target": "2", "at": "3s"}))
    kinds = [event.kind for event in record.events if event.node == 2]
    assert "crash" in kinds and "restart" not in kinds
    assert (record.history.outcome == OK).mean() > 0.95


def test_a_lost_machine_is_silent_and_a_killed_process_is_not() -> None:
    for name, least, most in (("crash", 0.0, 0.05), ("power_loss", 0.9, 1.0)):
        fault = {"name": name, "target": "all", "at": "3s", "restart_after": "300ms"}
        history = execute(made(fault, client={"timeout": "1s"})).history
        since_s = history.intended_ns / NS_PER_S - 3
        # Who asks a process that does not run asks again; who asks a machine that is silent waits,
        # and learns when it is there again that it has waited in vain.
        down = (since_s > 0) & (since_s < 0.29)
        assert least <= (history.outcome[down] == UNKNOWN).mean() <= most
        back = (since_s > 0.3) & (since_s < 1.5)
        assert (history.outcome[back] == OK).mean() > 0.99


def test_final_reads_do_not_wait_for_a_machine_that_is_lost() -> None:
    fault = {"name": "lose_machine", "target": "2", "at": "3s"}
    history = execute(made(fault, system=SYSTEM | {"protocol": {"name": "abd"}})).history
    final = history.phase == PHASE_FINAL
    assert final.sum() > 50
    assert (history.outcome[final] == OK).all()
    during = (history.intended_ns > 3 * NS_PER_S) & ~final
    assert (history.outcome[during] == UNKNOWN).mean() > 0.2


@pytest.mark.parametrize("durability", ["async", "fsync"])
def test_power_loss_cuts_the_log_of_a_node_that_is_down_already(durability: str) -> None:
    storage = {"durability": durability, "sync": "20ms"}
    system = {"protocol": {"name": "unreplicated"}, "node": {"storage": storage}}
    fault = {"name": "crash", "target": "0", "at": "5s"}
    cut = []
    for seed in range(1, 11):
        cluster = FrailCluster(made(fault, system=system, seed=seed))
        cluster.start()
        cluster.clock.run(NS_PER_S)
        (node,) = cluster.frail
        node.end(power=False)
        written = list(node.records)
        synced = node.shell.durable_records if durability == "fsync" else 0
        assert len(written) == node.shell.written_records >= synced
        node.end(power=True)
        assert synced <= len(node.records) and node.records == written[: len(node.records)]
        cut.append(len(written) - len(node.records))
        # What was recovered was synced, and stays.
        node.restart()
        node.end(power=True)
        assert len(node.records) == len(written) - cut[-1]
    assert max(cut) > (50 if durability == "async" else 0)


def test_a_leader_that_is_paused_is_no_leader_to_strike() -> None:
    first = {"name": "pause", "target": "leader", "at": "3s", "lasts": "2s"}
    second = {"name": "pause", "target": "leader", "at": "3010ms", "lasts": "100ms"}
    strikes = execute(made(first, second)).faults
    assert strikes[0].victims != strikes[1].victims
    # It has waited for the next one.
    assert 0.1 * NS_PER_S < strikes[1].at_ns - strikes[0].at_ns < NS_PER_S


@pytest.mark.parametrize("arrival", [{"name": "closed", "sessions": 4}, {"name": "poisson"}])
def test_recovery_is_told_under_open_and_closed_load(arrival: dict[str, Any]) -> None:
    if arrival["name"] == "poisson":
        arrival = arrival | {"rate": "500/s"}
    fault = {"name": "power_loss", "target": "leader", "at": "3s", "restart_after": "2s"}
    parts = made(fault, arrival=arrival, slo={"p99": "50ms"})
    found = summary_of(parts, execute(parts))["faults"][0]
    assert 0.2 <= found["detected_s"] < 0.5
    # Clients wait for their time-out; few sessions may have to wait for a second one, since what
    # was under way tells them nothing. What was intended shortly before the end is in time, too.
    assert 0.45 < found["recovered_s"] < (0.6 if arrival["name"] == "poisson" else 1.1)
    assert found["leader_changes"] == 1


# --- what cannot be ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "changes", "path", "words"),
    [
        ({"name": "crash", "at": "9s"}, {}, "faults[0].at", "over by then"),
        ({"name": "crash", "at": "1s", "target": "7"}, {}, "faults[0].target", "0 to 2"),
        ({"name": "crash", "at": "1s", "target": "zone:x"}, {}, "faults[0].target", "zones are"),
        ({"name": "crash", "at": "1s", "target": "boss"}, {}, "faults[0].target", "no target"),
        ({"name": "crash", "at": "1s", "target": "authority"}, {}, "faults[0].target", "authority"),
        ({"name": "crash"}, {}, "faults[0].at", "when?"),
        ({"name": "crsh", "at": "1s"}, {}, "faults[0].name", "crash"),
        ({"name": "chaos", "at": "1s"}, {}, "faults[0].mix", "weight"),
        (
            {"name": "chaos", "at": "1s", "mix": [{"name": "crash_client"}]},
            {},
            "faults[0].mix[0].name",
            "mixed in",
        ),
        ({"name": "partition", "at": "1s", "shape": "ring"}, {}, "faults[0]", "ring needs 4 nodes"),
        (
            {"name": "partition", "at": "1s", "shape": "bridge", "target": "0"},
            {"system": SYSTEM | {"replicas": 2}},
            "faults[0]",
            "bridge 3",
        ),
        ({"name": "partition", "at": "1s", "target": "all"}, {}, "faults[0]", "change nothing"),
        (
            {"name": "delay", "at": "1s"},
            {"system": {"protocol": {"name": "unreplicated"}}},
            "faults[0]",
            "clients: true",
        ),
        (
            {"name": "chaos", "at": "1s", "mix": [{"name": "partition", "shape": "ring"}]},
            {},
            "faults[0]",
            "change nothing",
        ),
        *(
            (
                {"name": "crash_client", "at": "1s", "target": target},
                {},
                "faults[0].target",
                "count:N",
            )
            for target in ("leader", "follower", "authority", "zone:a")
        ),
        (
            {"name": "crash", "at": "1s"},
            {"system": SYSTEM | {"node": {}}},
            "faults[0]",
            "restart_after: null",
        ),
    ],
)
def test_a_fault_that_cannot_strike_is_refused(
    fault: dict[str, Any], changes: dict[str, Any], path: str, words: str
) -> None:
    with pytest.raises(ConfigError) as found:
        made(fault, **changes)
    assert found.value.path == path
    assert words in f"{found.value} {found.value.hint}"


@pytest.mark.parametrize("shape", ["isolate", "halves", "one_way", "ring", "bridge"])
def test_every_shape_strikes_where_it_has_nodes_enough(shape: str) -> None:
    nodes = {"ring": 4, "bridge": 3}.get(shape, 2)
    fault = {"name": "partition", "at": "1s", "shape": shape}
    assert made(fault, system=SYSTEM | {"replicas": nodes}).config.faults
    alone = {"name": "partition", "at": "1s", "clients": True}
    assert made(alone, system={"protocol": {"name": "unreplicated"}}).config.faults


def test_a_claim_that_the_faults_break_is_refused() -> None:
    lease = SYSTEM | {"protocol": {"name": "raft", "reads": "lease"}, "consistency": "linearizable"}
    made({"name": "clock", "at": "1s", "drift": 0.005}, system=lease)
    for broken in ({"drift": 0.3}, {"offset": "1s"}):
        with pytest.raises(ConfigError, match="claims") as found:
            made({"name": "clock", "at": "1s"} | broken, system=lease)
        assert found.value.path == "system.consistency"


# --- the configs ------------------------------------------------------------------------

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_can_be_planned(path: Path) -> None:
    try:
        plan(load(path))
    except InputError as error:
        # A trace that the user is to bring.
        assert path.stem == "trace", error


def test_the_matrix_has_every_fault_and_every_protocol_and_time_to_recover() -> None:
    source = ConfigSource.read(CONFIGS / "resilience.yaml")
    axes = source.build().sweep
    struck = [fault for (fault,) in axes["faults"]]
    assert {fault["name"] for fault in struck} == set(plugins(Family.FAULT))
    named = {protocol["name"] for protocol in axes["system.protocol"]}
    assert named == set(plugins(Family.PROTOCOL)) - {"unreplicated"}
    bare = source.with_values({"sweep": {}})
    for fault in struck:
        parts = plan(bare.with_values({"faults": [fault]}).build())
        (aim, _), end_ns = parts.config.faults[0], parts.end_ns
        assert aim.at == 4 * NS_PER_S
        assert end_ns is not None and end_ns >= aim.at + (2 + 4) * NS_PER_S
    alone = bare.with_values({"system.protocol": {"name": "unreplicated"}, "system.replicas": 1})
    left = [variant for variant in variants(alone, {"faults": axes["faults"]}) if variant.config]
    assert 8 < len(left) < len(struck)


def test_a_leaderless_protocol_is_struck_at_once() -> None:
    overrides = ("system.protocol={name: abd}", "faults=[{name: pause, target: leader, at: 4s}]")
    source = ConfigSource.read(CONFIGS / "resilience.yaml").with_values({"sweep": {}})
    (strike,) = execute(plan(source.with_overrides(*overrides).build())).faults
    assert (strike.at_ns, strike.victims) == (4 * NS_PER_S, (0,))


def test_killing_leaders_machines_loses_nothing() -> None:
    parts = plan(load(CONFIGS / "faults" / "kill_leader.yaml", "runtime=sim", "duration=20s"))
    record = execute(parts)
    found = summary_of(parts, record)
    assert found["valid"] and found["consistency"]["verdict"] == VALID
    assert [each["at_s"] for each in found["faults"]] == [4.0, 9.0, 14.0, 19.0]
    assert all(0.2 < each["recovered_s"] < 1.0 for each in found["faults"])
    assert found["resilience"]["lost_acknowledged_writes"] == 0
    assert found["resilience"]["recovered"] == found["resilience"]["strikes"] == 4
