"""Every protocol on real sockets: its history passes what it claims while its leader is killed."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from orchestrator.config.load import load_mapping
from orchestrator.core import levels
from orchestrator.core.machine import OK, ClaimContext
from orchestrator.core.per_level import check_levels
from orchestrator.core.record import NO_COPY
from orchestrator.core.registry import Family, plugins
from orchestrator.core.units import NS_PER_S
from orchestrator.core.verdict import VALID, Evidence
from orchestrator.plan import plan
from orchestrator.runtimes import ray_cluster

pytestmark = pytest.mark.serial

# Time-outs that a short run sees run out, and yet bear a busy machine.
QUICK: dict[str, dict[str, Any]] = {
    "abd": {"resend": "50ms"},
    "chain": {"heartbeat": "30ms", "lease": "300ms", "resend": "100ms"},
    "craq": {"heartbeat": "30ms", "lease": "300ms", "resend": "100ms"},
    "epaxos": {"recovery": "200ms", "resend": "50ms"},
    "multi_paxos": {"election_timeout": "200ms", "heartbeat": "30ms"},
    "primary_backup": {"heartbeat": "30ms", "lease": "300ms", "resend": "100ms"},
    "quorum": {"resend": "50ms"},
    "raft": {"election_timeout": "200ms", "heartbeat": "30ms"},
}
PROTOCOLS = [name for name in plugins(Family.PROTOCOL) if name != "unreplicated"]
# One of each way to agree; the others are of the same ways.
OFTEN = ("chain", "epaxos", "multi_paxos", "quorum", "raft")
VICTIM = 0
"""Whoever leads at first."""


@pytest.mark.parametrize(
    "protocol",
    [pytest.param(name, marks=() if name in OFTEN else (pytest.mark.long,)) for name in PROTOCOLS],
)
def test_what_is_claimed_holds_through_the_crash_of_the_leader(
    runtime: ray_cluster.RayRuntime, protocol: str
) -> None:
    made = plan(
        load_mapping(
            {
                "experiment": "killed",
                "system": {
                    "protocol": {"name": protocol} | QUICK.get(protocol, {}),
                    "replicas": 3,
                    "node": {"costs": "measured", "storage": {"durability": "fsync"}},
                },
                "workload": {"name": "ycsb", "mix": "a", "keys": 50, "value_size": "16B"},
                "arrival": {"name": "closed", "sessions": 8, "think_time": "5ms"},
                "client": {"timeout": "1s"},
                "warmup": "0s",
                "duration": "3s",
            }
        )
    )
    with runtime.deployed(made) as deployment:
        deployment.start()
        timer = threading.Timer(0.8, os.kill, (deployment.node_pids[VICTIM], signal.SIGKILL))
        timer.start()
        deployment.wait()
        record = deployment.collect(True, 0)
    reason = f"node {VICTIM}: its process died, and was started again"
    assert record.lost_parts == (reason,)
    store = made.store
    context = ClaimContext(3, False, "fsync", 3, restarts=True, crashes=True)
    claimed = store.protocol.implementation.claims(store.protocol.params, context)
    digests = [each.contents_digest for each in record.nodes if each.contents_digest != NO_COPY]
    found = check_levels(record.history, claimed, Evidence(digests=digests))
    assert found.verdict == VALID, [each.explanation for each in found.verdicts]
    if levels.EVENTUAL in levels.closure(claimed):
        assert len(set(digests)) == 1
    late = record.history.intended_ns > 2 * NS_PER_S
    assert (record.history.outcome[late] == OK).mean() > 0.5
