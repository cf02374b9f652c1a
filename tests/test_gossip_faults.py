"""Gossip in the simulator: crashes, cuts and losses neither lose nor double what was counted."""

from __future__ import annotations

import msgspec
import pytest
from sim_faults import Outcome, configured, simulate

from orchestrator.core.machine import OK, READ, UNKNOWN
from orchestrator.core.units import NS_PER_MS
from orchestrator.protocols._gossip_data import COUNTER, SET

HARD = {"gap_ns": 40 * NS_PER_MS, "loss": 0.05}
UPDATES = {COUNTER: "increment", SET: "add"}


def miscounted(outcome: Outcome) -> str:
    """Keys whose contents at the end are not what the answers allow."""
    history, parts = outcome.history, outcome.cluster.parts
    contents = outcome.cluster.nodes[0].shell.machine.contents()
    found = []
    for key in sorted(set(history.key.tolist())):
        changes = (history.key == key) & (history.kind != READ)
        done, doubtful = (changes & (history.outcome == each) for each in (OK, UNKNOWN))
        entry = contents.get(parts.workload.key_names[key])
        if parts.workload.model == COUNTER:
            total = 0 if entry is None else int(entry.value)
            right = done.sum() <= total <= done.sum() + doubtful.sum()
        else:
            packed = b"\x90" if entry is None else entry.value
            here = {int.from_bytes(each[:8], "big") for each in msgspec.msgpack.decode(packed)}
            sure = set(history.value_id[done].tolist())
            right = sure <= here <= sure | set(history.value_id[doubtful].tolist())
        if not right:
            found.append(f"key {key}")
    return ", ".join(found)


@pytest.mark.parametrize("data", [COUNTER, SET])
def test_faults_lose_and_double_nothing(data: str) -> None:
    for seed in range(6):
        protocol = {"name": "gossip", "data": data, "push": seed % 2 == 0, "interval": "20ms"}
        ordering = f"system.network.ordering={('fifo', 'none')[seed % 3 == 0]}"
        update = f"workload.update={UPDATES[data]}"
        config = configured(
            seed, {"protocol": protocol, "replicas": 3}, ordering, update, "duration=1s"
        )
        outcome = simulate(config, faults=HARD)
        assert outcome.problem == ""
        assert miscounted(outcome) == "", f"seed {seed}"
        assert (outcome.history.outcome == OK).sum() > 100
