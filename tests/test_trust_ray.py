"""The verdict on real runs that were made bad on purpose, and a warm-up that was found in one."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import pytest

from orchestrator.analysis.latency import measured_window
from orchestrator.analysis.summary import summarise
from orchestrator.analysis.validity import invalid_reasons
from orchestrator.config.load import load_mapping
from orchestrator.core.record import RunRecord
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


def reasons(record: RunRecord, made: Parts) -> str:
    """All that the verdict says of it."""
    window = measured_window(record, made.config.client.timeout)
    return " ".join(invalid_reasons(window, made.config, None))


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
    found = reasons(record, made)
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


MODELLED = {"protocol": {"name": "unreplicated"}, "node": {"cpu": {"read": "4ms"}}}
CLOSED = {"name": "closed", "sessions": 8}


def test_rows_of_a_history_that_are_missing(runtime: ray_cluster.RayRuntime) -> None:
    made = parts(system=MODELLED, arrival=CLOSED, duration="1s")
    record = execute(made, runtime=runtime)
    assert "Little's law" not in reasons(record, made)
    kept = record.history.select(numpy.arange(len(record.history)) % 5 > 0)
    found = reasons(dataclasses.replace(record, history=kept), made)
    assert "Little's law does not hold" in found


@contextmanager
def quota(pids: Sequence[int], share: float) -> Iterator[None]:
    """A control group of the test's own that gives all of them together so much of one core."""
    name = f"archbench-test-{os.getpid()}"
    old, new = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    group = (old if old.is_dir() else new) / name
    try:
        group.mkdir()
        if old.is_dir():
            (group / "cpu.cfs_quota_us").write_text(f"{share * 100_000:.0f}")
        else:
            (group / "cpu.max").write_text(f"{share * 100_000:.0f} 100000")
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no control group can be made: {error}")
    try:
        homes = [_move(pid, group) for pid in pids]
        yield
        for pid, home in zip(pids, homes, strict=True):
            (home / "cgroup.procs").write_text(str(pid))
    finally:
        group.rmdir()


def _move(pid: int, group: Path) -> Path:
    """Into that group; returns the one that it was in."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        if controllers in ("cpu", "cpu,cpuacct", ""):
            break
    else:
        raise AssertionError(f"process {pid} is in no group")
    (group / "cgroup.procs").write_text(str(pid))
    return group.parent / own.lstrip("/")


def test_a_quota_that_holds_a_client_back(runtime: ray_cluster.RayRuntime) -> None:
    made = parts(arrival=CLOSED, duration="1s")
    with runtime.deployed(made) as deployment, quota(deployment.client_pids, 0.2):
        deployment.start()
        deployment.wait()
        record = deployment.collect(False, 0)
    assert "a CPU quota held processes on host" in reasons(record, made)


def test_a_host_that_has_too_much_else_to_do(runtime: ray_cluster.RayRuntime) -> None:
    made = parts(system=MODELLED, arrival={"name": "poisson", "rate": "100/s"})
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(6 * len(os.sched_getaffinity(0)))
    ]
    try:
        record = execute(made, runtime=runtime)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    found = reasons(record, made)
    assert "busy; above" in found
    [host] = record.host_loads
    if host.run_queue is not None or host.pressure is not None:
        assert "waited for a CPU of host" in found
