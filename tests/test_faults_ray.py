"""Faults on real processes, sockets and disks: the same plug-ins, the same figures."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy
import pytest
from sim_faults import Chosen

from orchestrator.analysis.durability import survival
from orchestrator.analysis.resilience import course_of, fault_figures
from orchestrator.config.load import load_mapping
from orchestrator.core.history import PHASE_FINAL
from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import OK, UNKNOWN, WRITE, ClaimContext
from orchestrator.core.record import NO_COPY, RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.core.verdict import INVALID, VALID
from orchestrator.plan import plan
from orchestrator.protocols.raft import Params, Raft
from orchestrator.run import judge
from orchestrator.runtimes._duty import DutyCycle
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes.ray_cluster import RayRuntime

pytestmark = pytest.mark.serial


def made(*faults: dict[str, Any], duration: str, timeout: str = "500ms", **storage: Any) -> Parts:
    """Raft under faults, half of the operations on keys that nobody writes again."""
    return plan(
        load_mapping(
            {
                "experiment": "faults",
                "system": {
                    "protocol": {"name": "raft", "election_timeout": "200ms", "heartbeat": "30ms"},
                    "replicas": 3,
                    "node": {"costs": "measured", "storage": {"durability": "fsync"} | storage},
                },
                "workload": {"name": "ycsb", "mix": "a", "inserts": 0.5, "value_size": "16B"},
                "arrival": {"name": "poisson", "rate": "200/s"},
                "clients": 2,
                "client": {"timeout": timeout},
                "warmup": "500ms",
                "duration": duration,
                "faults": list(faults),
            }
        )
    )


def read_back(record: RunRecord) -> bool:
    """Whether every key that was written has been read in the end."""
    history = record.history
    final = (history.phase == PHASE_FINAL) & (history.outcome == OK)
    acknowledged = (history.kind == WRITE) & (history.outcome == OK)
    return set(history.key[acknowledged]) <= set(history.key[final])


def test_faults_of_every_sort_strike_real_processes_and_nothing_is_lost(
    runtime: RayRuntime,
) -> None:
    parts = made(
        {"name": "power_loss", "target": "leader", "at": "1s", "restart_after": "500ms"},
        {"name": "pause", "target": "leader", "at": "2500ms", "lasts": "600ms"},
        {"name": "partition", "target": "leader", "clients": True, "at": "4s", "lasts": "600ms"},
        {"name": "failing_storage", "target": "leader", "share": 1.0, "at": "5500ms"},
        {"name": "crash_client", "target": "1", "at": "6s", "restart_after": "500ms"},
        {"name": "loss", "target": "all", "share": 0.1, "at": "6500ms", "lasts": "500ms"},
        {"name": "clock", "target": "follower", "drift": 0.3, "at": "6600ms", "lasts": "500ms"},
        duration="7500ms",
    )
    record = runtime.run(parts, settle=True)
    assert not record.lost_parts
    assert [strike.name for strike in record.faults] == [
        slot.name for _, slot in parts.config.faults
    ]
    kinds = [event.kind for event in record.events]
    assert {"crash", "restart", "pause", "resume", "storage", "role"} <= set(kinds)
    verdict = judge(parts, record)
    assert verdict.verdict == VALID, [each.explanation for each in verdict.verdicts]
    assert read_back(record)
    survived = survival(record.history)
    assert (survived.verdict, survived.lost, survived.unread) == (VALID, (), 0)
    figures = fault_figures(record, parts.config, course_of(record, parts.config), survived)
    assert [each["leader_changes"] > 0 for each in figures[:3]] == [True] * 3
    assert all(0.1 < each["detected_s"] < 3.0 for each in figures[:3])
    assert len({node.contents_digest for node in record.nodes}) == 1


def test_a_lost_machine_is_silent_and_a_killed_process_is_not(runtime: RayRuntime) -> None:
    for name, least, most in (("crash", 0.0, 0.2), ("power_loss", 0.8, 1.0)):
        fault = {"name": name, "target": "all", "at": "1500ms", "restart_after": "400ms"}
        parts = made(fault, duration="3500ms", timeout="1500ms")
        record = runtime.run(parts, settle=True)
        assert not record.lost_parts
        history = record.history
        since_s = (history.intended_ns - record.faults[0].at_ns) / NS_PER_S
        # Who asks a process that does not run asks again; who asks a machine that is silent waits,
        # and learns when it is there again that it has waited in vain.
        down = (since_s > 0.1) & (since_s < 0.35)
        assert least <= (history.outcome[down] == UNKNOWN).mean() <= most
        back = (since_s > 1.5) & (history.phase != PHASE_FINAL)
        assert (history.outcome[back] == OK).mean() > 0.9
        assert survival(history).lost == ()


class SkipsItsSyncs(Raft):
    """Says what it may say only of a log that is synced."""

    @staticmethod
    def claims(params: Params, context: ClaimContext) -> frozenset[str]:
        return frozenset({LINEARIZABLE})


def test_a_log_that_is_never_synced_is_caught_when_all_machines_stop(runtime: RayRuntime) -> None:
    fault = {"name": "power_loss", "target": "all", "at": "1500ms", "restart_after": "300ms"}
    parts = made(fault, duration="3s")
    record = runtime.run(parts, settle=True)
    assert judge(parts, record).verdict == VALID
    assert read_back(record) and survival(record.history).lost == ()

    parts = made(fault, duration="3s", durability="async")
    slot = parts.store.protocol
    twin = Chosen(slot.family, slot.name, slot.params, SkipsItsSyncs)
    store = dataclasses.replace(parts.store, protocol=twin)
    system = dataclasses.replace(parts.config.system, params=store)
    parts = Parts.of(dataclasses.replace(parts.config, system=system))
    record = runtime.run(parts, settle=True)
    lost = survival(record.history).lost
    assert lost is not None and len(lost) > 20
    verdict = judge(parts, record)
    assert verdict.verdict == INVALID
    assert verdict.verdicts[0].witness


def test_a_node_whose_synced_log_is_damaged_stays_away_and_is_named(runtime: RayRuntime) -> None:
    parts = made(duration="2s")
    with runtime.deployed(parts) as deployment:
        deployment.start()
        time.sleep(1.0)
        os.kill(deployment.node_pids[1], signal.SIGKILL)
        (log,) = Path(deployment._specs[1].folder).glob("*.log")
        data = bytearray(log.read_bytes())
        data[20] ^= 1
        log.write_bytes(data)
        deployment.wait()
        record = deployment.collect(False, 0)
    assert len(record.lost_parts) == 1
    assert f"node 1: the log {log} is damaged at byte " in record.lost_parts[0]
    assert record.nodes[1].messages[-3:].sum() == 0


def test_a_machine_that_is_lost_leaves_its_record_behind(runtime: RayRuntime) -> None:
    parts = made({"name": "lose_machine", "target": "2", "at": "1500ms"}, duration="2s")
    record = runtime.run(parts, settle=True)
    assert not record.lost_parts
    gone = record.nodes[2]
    assert (gone.role, gone.contents_digest) == ("down", NO_COPY)
    assert gone.messages[:10].sum() > 0 == gone.messages[18:].sum()
    assert judge(parts, record).verdict == VALID


def test_a_process_can_be_slowed_down(runtime: RayRuntime) -> None:
    fault = {"name": "slow", "target": "all", "factor": 8, "at": "1500ms", "lasts": "1s"}
    record = runtime.run(made(fault, duration="3s", durability="memory"))
    assert not record.lost_parts
    struck_s = record.faults[0].at_ns / NS_PER_S
    history = record.history
    took_ns = history.returned_ns - history.intended_ns
    answered = history.outcome == OK

    def median_ms(after_s: float, before_s: float) -> float:
        due_s = history.intended_ns / NS_PER_S
        rows = answered & (due_s >= after_s) & (due_s < before_s)
        return float(numpy.median(took_ns[rows])) / NS_PER_MS

    # Processes that go on every 10 ms hold most operations up for some milliseconds.
    slow_ms = median_ms(struck_s + 0.1, struck_s + 0.9)
    assert slow_ms > 3
    assert slow_ms > 2 * median_ms(0.5, struck_s)
    assert slow_ms > 2 * median_ms(struck_s + 1.2, 9.0)


def test_what_is_slowed_down_goes_on_as_before_afterwards() -> None:
    turns: list[str] = []
    duty = DutyCycle(lambda: turns.append("halt"), lambda: turns.append("go on"))
    duty.slow_down(4.0)
    time.sleep(0.2)
    duty.slow_down(1.0)
    assert 5 < len(turns) < 60
    assert turns == ["halt", "go on"] * (len(turns) // 2)
    told = len(turns)
    time.sleep(0.05)
    assert len(turns) == told
