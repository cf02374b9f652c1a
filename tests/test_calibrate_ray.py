"""A host is measured by real runs, and the simulator says what a real run will be."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator import calibrate as calibration
from orchestrator import cli
from orchestrator.config.load import load_mapping
from orchestrator.plan import plan
from orchestrator.runtimes import _reaper
from orchestrator.runtimes._child import _keep_to
from orchestrator.runtimes._placement import Pin
from orchestrator.runtimes.ray_cluster import RayRuntime

pytestmark = pytest.mark.serial

SMALL = """
experiment: small
system:
  protocol: {name: unreplicated}
  replicas: 1
  node: {costs: measured}
workload: {name: ycsb, mix: b, keys: 100}
arrival: {name: closed, sessions: 4}
warmup: 200ms
duration: 500ms
"""


def shown(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, Any, str]:
    code = cli.main([*arguments, "--json"])
    printed = capsys.readouterr()
    return code, json.loads(printed.out), printed.err


def test_a_host_is_calibrated_and_a_run_of_measured_costs_predicted(
    runtime: RayRuntime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(calibration, "SESSIONS", (1, 16))
    monkeypatch.setattr(calibration, "WATCHES", 2)
    results = ["--results", str(tmp_path / "results")]
    command = ["calibrate", "--protocol", "unreplicated", "--seconds", "0.3", *results]
    code, found, _ = shown(command, capsys)
    assert code == 0
    host = found["hosts"][0]
    path = host["profile"]
    assert Path(path).parent == tmp_path / "results" / "profiles"
    assert host["cores"] == len(os.sched_getaffinity(0))
    assert [*host["protocols"]] == ["unreplicated"]
    assert host["observations"] >= 8
    (tmp_path / "small.yaml").write_text(SMALL)
    command = ["predict", str(tmp_path / "small.yaml"), "--profile", path, "--repeat", "2"]
    code, found, said = shown([*command, *results], capsys)
    assert code in (0, 1)
    assert found["profile"] == path
    point = found["points"][0]
    assert (point["name"], len(found["points"])) == ("as configured", 1)
    rate = found["ratios"]["throughput_ops"]
    assert rate["ratio"] == pytest.approx(
        found["sim"]["throughput_ops"] / found["ray"]["throughput_ops"], rel=0.2
    )
    # A busy machine is slower than it was measured, but not by an order.
    assert 0.1 < rate["ratio"] < 10
    assert rate["ci95"] is None or rate["ci95"][0] <= rate["ratio"] <= rate["ci95"][1]
    # On a busy machine pairs are made again.
    pairs = {len(ids) for ids in point["run_ids"].values()}
    assert pairs <= {1, 2} and len(pairs) == 1
    assert said.count("as configured") == 2 * (pairs.pop() + len(point["left_out"])) >= 4


def test_pinned_processes_keep_to_their_cores_and_usage_is_counted(runtime: RayRuntime) -> None:
    config = load_mapping(
        {
            "experiment": "pinned",
            "hosts": {"pin": True},
            "system": {
                "replicas": 1,
                "node": {"costs": "measured"},
                "protocol": {"name": "unreplicated"},
            },
            "arrival": {"name": "closed", "sessions": 4},
            "workload": {"keys": 100},
            "warmup": "100ms",
            "duration": "400ms",
        }
    )
    cores = sorted(os.sched_getaffinity(0))
    with runtime.deployed(plan(config)) as deployment:
        kept = [os.sched_getaffinity(deployment.node_pids[0])]
        kept.append(os.sched_getaffinity(deployment.client_pids[0]))
        deployment.start()
        deployment.wait()
        record = deployment.collect(False, 0)
    assert kept == [{cores[0]}, {cores[-1]}]
    operations = len(record.history)
    for usage in (record.nodes[0].usage, record.clients[0].usage):
        assert usage is not None
        assert 0 < usage.cpu_ns < 500_000_000
        # Requests of several sessions may share a call, and no call is without one.
        assert 0 < usage.writes <= 1.2 * operations
        assert usage.transferred_bytes > 20 * operations


def test_keeping_to_a_core_needs_a_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: kept.append(cores))
    _keep_to(None)
    assert kept == []
    _keep_to(Pin(("a", "a"), 1, 1))
    assert kept == [{7}]


def _scripts_of(driver: int) -> dict[int, bytes]:
    """Command lines of all descendants of a process."""
    known: dict[int, int] = {}
    _reaper._note_descendants(driver, known)
    found = {}
    for pid in known:
        with contextlib.suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system knows no such policy")
def test_what_is_measured_gives_way_to_nobody_and_rays_helpers_to_all(runtime: RayRuntime) -> None:
    config = load_mapping(lone())
    with runtime.deployed(plan(config)) as deployment:
        deployment.start()
        for pid in deployment.client_pids:
            own = os.getpriority(os.PRIO_PROCESS, os.getpid())
            assert os.getpriority(os.PRIO_PROCESS, pid) == own
        until = time.monotonic() + 10
        while True:
            policies = {
                os.sched_getscheduler(pid)
                for pid, line in _scripts_of(os.getpid()).items()
                if b"log_monitor.py" in line
            }
            if policies == {os.SCHED_IDLE} or time.monotonic() > until:
                break
            time.sleep(0.1)
        deployment.wait()
    assert policies == {os.SCHED_IDLE}


def test_hosts_say_how_fast_their_cores_were(runtime: RayRuntime) -> None:
    record = runtime.run(plan(load_mapping(lone())))
    [host] = record.host_loads
    assert host.loops_us is not None and list(host.loops_us) == sorted(host.loops_us)
    assert 1 < host.loops_us[0] < 10_000
    node, client = record.nodes[0].usage, record.clients[0].usage
    assert node is not None and client is not None
    # Ten times a second each, over a second.
    assert 8 <= len(node.loops_ns) <= 11 and 8 <= len(client.loops_ns) <= 11
    assert node.ticks > 0 < client.ticks and node.entries == 0


def lone() -> dict[str, Any]:
    return {
        "experiment": "lone",
        "system": {"protocol": {"name": "unreplicated"}, "node": {"costs": "measured"}},
        "workload": {"name": "ycsb", "mix": "c", "keys": 100},
        "arrival": {"name": "poisson", "rate": "500/s"},
        "warmup": "200ms",
        "duration": "1s",
    }
