"""The verdict on real runs whose client was stopped, and on a warm-up that was found in one."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from orchestrator.analysis.latency import measured_window
from orchestrator.analysis.summary import summarise
from orchestrator.analysis.validity import invalid_reasons
from orchestrator.config.load import load_mapping
from orchestrator.core.units import NS_PER_S
from orchestrator.plan import plan
from orchestrator.run import execute
from orchestrator.runtimes import ray_cluster
from orchestrator.runtimes._parts import Parts

pytestmark = [pytest.mark.serial, pytest.mark.timeout(120)]


def parts(**changes: Any) -> Parts:
    config = {
        "experiment": "trust",
        "system": {"protocol": {"name": "unreplicated"}, "node": {"costs": "measured"}},
        "workload": {"name": "ycsb", "mix": "c", "keys": 100},
        "arrival": {"name": "poisson", "rate": "500/s"},
        "client": {"timeout": "5s"},
        "warmup": "200ms",
        "duration": "2s",
    }
    return plan(load_mapping(config | changes))


def test_a_client_that_was_stopped(runtime: ray_cluster.RayRuntime) -> None:
    """For 0.6 of 2 s nothing is sent, and then all at once."""
    made = parts()
    with runtime.deployed(made) as deployment:
        deployment.start()
        [pid] = deployment.client_pids
        timers = [
            threading.Timer(after_s, os.kill, (pid, number))
            for after_s, number in ((0.8, signal.SIGSTOP), (1.4, signal.SIGCONT))
        ]
        for timer in timers:
            timer.start()
        deployment.wait()
        record = deployment.collect(False, 0)
    window = measured_window(record, made.config.client.timeout)
    found = " ".join(invalid_reasons(window, made.config, None))
    assert "operations were sent late" in found
    assert "operations were not sent as arrival 'poisson' asks" in found


def test_a_warm_up_that_is_found(runtime: ray_cluster.RayRuntime) -> None:
    made = parts(warmup="auto", duration="1s")
    record = execute(made, runtime=runtime)
    assert record.end_ns == 1.5 * NS_PER_S and 0 <= record.warmup_ns <= 0.5 * NS_PER_S
    summary = summarise(record, made.config, None, run_id="r", config_hash="c", results="x")
    assert summary["steady_state"]["warmup_s"] == record.warmup_ns / NS_PER_S
    assert summary["steady_state"]["method"] == "mser-5"
    within = record.history.intended_ns >= record.warmup_ns
    assert summary["latency_ms"]["all"]["count"] == int(within.sum())
    [client] = record.clients
    assert client.wall_ns == pytest.approx(1.5 * NS_PER_S, rel=0.1)
    # About a thousand counts, on the client's own clock.
    assert len(client.outstanding) > 500 and client.probed_ns[-1] < 2 * NS_PER_S
    [host] = summary["hosts"]
    assert 0 < host["busy"] <= 1 and host["steal"] is not None
