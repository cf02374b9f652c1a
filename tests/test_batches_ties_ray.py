"""Batches, ties and autoscalers in real runs on an embedded Ray."""

from __future__ import annotations

import numpy
import pytest
from test_run_ray import parts

from orchestrator.core.machine import OK
from orchestrator.core.record import INTERVAL_NS
from orchestrator.core.scaling import changes_of
from orchestrator.core.units import NS_PER_MS
from orchestrator.runtimes import ray_cluster

pytestmark = pytest.mark.serial


def test_reads_wait_at_two_nodes_and_one_drops_its_copy(runtime: ray_cluster.RayRuntime) -> None:
    """At 80 % load; the same run in the simulator says what to expect."""
    node = {"cpu": {"read": {"name": "exponential", "mean": "10ms"}}, "queue": {"name": "fifo"}}
    for after in (None, "2ms"):
        made = parts(
            {"name": "primary_backup", "mode": "async", "read_from": "any"},
            system={"node": node, "network": {"delay": "1ms"}, "balancer": {"name": "random"}},
            workload={"name": "ycsb", "mix": "c", "keys": 200},
            arrival={"name": "poisson", "rate": "240/s"},
            client={"tie": {"after": after}, "timeout": "5s"},
            duration="1500ms",
        )
        record = runtime.run(made)
        assert not record.lost_parts
        assert (record.history.outcome == OK).all()
        cancelled = sum(node.cancelled.sum() for node in record.nodes)
        in_vain = sum(client.answers_in_vain for client in record.clients)
        extra = sum(client.extra_attempts for client in record.clients)
        if after is None:
            assert cancelled == in_vain == extra == 0
        else:
            assert cancelled > 0.5 * len(record.history)
            assert in_vain < 0.5 * len(record.history)
            assert extra > 250


def test_cores_come_and_go_with_the_load(runtime: ray_cluster.RayRuntime) -> None:
    autoscaler = {
        "name": "target_utilisation",
        "period": "200ms",
        "delay": "100ms",
        "cooldown": "500ms",
    }
    node = {"cpu": {"read": "10ms", "write": "10ms"}, "autoscaler": autoscaler}
    made = parts(
        {"name": "unreplicated"},
        system={"replicas": 1, "node": node},
        arrival={
            "name": "flash_crowd",
            "base": "40/s",
            "peak": "400/s",
            "at": "1s",
            "lasts": "1500ms",
        },
        client={"timeout": "5s"},
        warmup="500ms",
        duration="4s",
    )
    record = runtime.run(made)
    assert not record.lost_parts
    assert (record.history.outcome == OK).all()
    changes = changes_of(record.events, 0)
    # Four cores serve the crowd, seven to the target.
    assert 4 < max(cores for _, cores in changes) <= 16
    assert changes[-1][1] <= 2
    node_seen = record.nodes[0]
    assert node_seen.cores == 1
    assert node_seen.provided_ns.max() > 4 * INTERVAL_NS
    assert (node_seen.cpu_busy_ns <= 1.5 * node_seen.provided_ns + INTERVAL_NS).all()


def test_operations_travel_together(runtime: ray_cluster.RayRuntime) -> None:
    made = parts(
        {"name": "unreplicated"},
        system={"replicas": 1, "network": {"delay": "2ms"}},
        arrival={"name": "constant", "rate": "500/s"},
        client={"connections": 1, "batch": {"max": 5, "linger": "50ms"}},
    )
    record = runtime.run(made)
    assert (record.history.outcome == OK).all()
    requests, operations = record.clients[0].carried
    assert operations == len(record.history)
    assert operations / requests > 4.9
    took_ms = (record.history.returned_ns - record.history.intended_ns) / NS_PER_MS
    # Two ways of about 2 ms, and the first of five waits for four others.
    assert took_ms.min() > 3.5
    assert numpy.median(numpy.sort(took_ms)[-len(took_ms) // 5 :]) > 11
