"""Real Redis servers beside the emulated nodes: deployment, load, counters, deaths."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from real_redis import parts, wheel

from orchestrator.analysis.durability import survival
from orchestrator.analysis.resources import bottleneck, cost_per_hour, costs, utilisations
from orchestrator.analysis.summary import summarise
from orchestrator.analysis.validity import host_limited
from orchestrator.config.load import load, load_mapping
from orchestrator.core.history import PHASE_FINAL
from orchestrator.core.machine import FAIL, OK, UNKNOWN
from orchestrator.core.record import LOST, RunRecord
from orchestrator.core.units import NS_PER_S
from orchestrator.errors import EnvironmentFailure, InfeasibleError
from orchestrator.plan import plan
from orchestrator.run import judge
from orchestrator.runtimes import _server_process, ray_cluster
from orchestrator.runtimes._deployment import Deployment
from orchestrator.runtimes._handshake import Credentials
from orchestrator.runtimes._node_process import NodeSpec
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._redis_commands import RedisCommands, preload
from orchestrator.runtimes._server_process import ServerProcess
from orchestrator.systems import redis

ROOT = Path(__file__).resolve().parent.parent
CREDENTIALS = Credentials.fresh()

# --- one server and its replica, without Ray --------------------------------------------


@pytest.fixture(params=["system", "wheel"])
def executable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each redis-server that this machine has."""
    found = shutil.which("redis-server")
    if request.param == "wheel":
        monkeypatch.setattr(shutil, "which", lambda name: None)
        found = wheel()
        monkeypatch.undo()
    elif found is None:
        pytest.skip("no redis-server on the PATH")
    monkeypatch.setattr(redis, "find_executable", lambda: found)
    return str(found)


@pytest.mark.serial
def test_a_replica_receives_the_data_and_servers_count(executable: str, tmp_path: Path) -> None:
    made = parts(replicas=2, read_from="any")

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        servers = []
        for node in range(2):
            folder = tmp_path / str(node)
            folder.mkdir()
            spec = NodeSpec(made, node, "127.0.0.1", str(folder), time.monotonic_ns(), CREDENTIALS)
            servers.append(ServerProcess(spec, loop))
        try:
            ports = [(await server.listen())["client_port"] for server in servers]
            addresses = [("127.0.0.1", port) for port in ports]
            for server in servers:
                server.connect(addresses)
            await until(lambda: all(server.connected for server in servers))
            preload(made, addresses[0], CREDENTIALS)
            assert servers[0].digest() == servers[1].digest() != "0" * 16
            await counted(servers, addresses)
        finally:
            for server in servers:
                server.close()

    asyncio.run(scenario())


async def counted(servers: list[ServerProcess], addresses: list[tuple[str, int]]) -> None:
    """Operations after the start show up in the records, and nothing of before."""
    origin_ns = time.monotonic_ns()
    for server in servers:
        server.start(origin_ns)
    primary, replica = (RedisCommands(address, 5.0, CREDENTIALS) for address in addresses)
    for _ in range(30):
        primary.call("SET", "user000000000007", "x")
        primary.call("GET", "user000000000007")
    primary.call("WAIT", 1, 2000)
    assert replica.pipeline([("GET", "user000000000007"), ("GET", "nothing")]) == [b"x", None]
    await asyncio.sleep(0.25)
    end_ns = time.monotonic_ns() - origin_ns
    first, second = (server.record(0, end_ns, True)[0] for server in servers)
    assert (first.role, second.role) == ("primary", "replica")
    assert [int(first.operations.sum()), int(first.messages.sum())] == [60, 0]
    assert [int(second.operations.sum()), int(second.messages.sum())] == [2, 30]
    assert [int(second.cache_hits.sum()), int(second.cache_misses.sum())] == [1, 1]
    assert first.process_cpu_ns > 0
    assert len(first.operations) == -(-end_ns // 100_000_000)
    assert first.contents_digest == second.contents_digest != ""
    primary.close()
    replica.close()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, 10 s at most."""
    deadline_s = time.monotonic() + 10.0
    while not holds():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\necho v=7; echo Bad directive; exit 1\n", "ended at once .*Bad directive"),
        ("#!/bin/sh\n[ $1 = --version ] || exec sleep 60\n", "did not answer in 0 s"),
    ],
)
def test_a_server_that_does_not_start_is_explained(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text(script.replace("exit 1", "[ $1 = --version ]"))
    broken.chmod(0o755)
    monkeypatch.setattr(redis, "find_executable", lambda: str(broken))
    monkeypatch.setattr(_server_process, "START_S", 0.3)

    async def start() -> ServerProcess:
        spec = NodeSpec(parts(), 0, "127.0.0.1", str(tmp_path), 0, CREDENTIALS)
        server = ServerProcess(spec, asyncio.get_running_loop())
        with pytest.raises(EnvironmentFailure, match=said):
            await server.listen()
        return server

    server = asyncio.run(start())
    assert server._program is not None
    assert server._program.poll() is not None


# --- whole runs on Ray ------------------------------------------------------------------


def servers_of(deployment: Deployment) -> list[int]:
    """Process ids of the server programs, by node."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(words[1])] = int(entry.parent.name)
    return [parents[pid] for pid in deployment.node_pids]


def gone(pids: list[int]) -> bool:
    """Whether all these processes end soon; what nobody has waited for yet has ended too."""
    deadline_s = time.monotonic() + 5.0
    while any(state(pid) not in ("", "Z") for pid in pids):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


def state(pid: int) -> str:
    """The letter that the kernel gives a process, empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def observe(
    runtime: ray_cluster.RayRuntime, made: Parts, victim: int | None = None
) -> tuple[RunRecord, dict[str, Any]]:
    """A run's record and result object; kills the ``victim``'s server 500 ms into it."""
    with runtime.deployed(made) as deployment:
        servers = servers_of(deployment)
        deployment.start()
        if victim is not None:
            threading.Timer(0.5, os.kill, (servers[victim], signal.SIGKILL)).start()
        deployment.wait()
        record = deployment.collect(True, 0)
    assert len(servers) == made.system.nodes
    assert gone(servers)
    names = {"run_id": "r", "config_hash": "h", "results": "results"}
    return record, summarise(record, made.config, judge(made, record), **names)


@pytest.mark.serial
def test_a_run_keeps_what_is_claimed_and_fills_the_result(runtime: ray_cluster.RayRuntime) -> None:
    made = parts(replicas=2, read_from="any", maxmemory="64MiB", client={"sticky": True})
    record, summary = observe(runtime, made)
    assert record.lost_parts == ()
    assert summary["outcomes"]["ok"] > 500
    assert summary["outcomes"]["fail"] == summary["outcomes"]["unknown"] == 0
    assert summary["consistency"]["claimed"] == "eventual+monotonic_reads"
    assert summary["consistency"]["verdict"] == "valid"
    assert summary["cache"]["hit_ratio"] == 1.0
    primary, replica = record.nodes
    assert primary.contents_digest == replica.contents_digest != ""
    assert replica.operations.sum() > 100
    assert replica.messages.sum() > 10
    done = sum(int(node.operations.sum()) for node in record.nodes)
    assert done == pytest.approx(len(record.history), rel=0.05)
    assert costs(made.config) == "measured"
    shares = utilisations(record, "measured")
    assert set(shares) == {"primary.cpu", "replica.cpu"}
    assert all(0 < share < 1.2 for share in shares.values())
    assert summary["bottleneck"] == bottleneck([shares], summary["throughput_ops"])
    assert summary["host_limited"] == host_limited(record, made.config)
    prices = replace(made.config.prices, core=1.0, GiB=8.0)
    assert cost_per_hour(record, replace(made.config, prices=prices)) == 3.0


@pytest.mark.serial
def test_the_shipped_config_runs(runtime: ray_cluster.RayRuntime) -> None:
    config = load(ROOT / "configs" / "redis.yaml", "warmup=200ms", "duration=1s")
    _, summary = observe(runtime, plan(config))
    assert summary["consistency"]["claimed"] == "linearizable"
    assert summary["consistency"]["verdict"] == "valid"
    assert summary["latency_ms"]["read"]["count"] > 10 * summary["latency_ms"]["write"]["count"] > 0


@pytest.mark.serial
def test_a_killed_server_leaves_outcomes_in_doubt_and_is_named(
    runtime: ray_cluster.RayRuntime,
) -> None:
    made = parts(client={"timeout": "300ms"})
    began_s = time.monotonic()
    record, summary = observe(runtime, made, victim=0)
    assert time.monotonic() - began_s < 20.0
    outcome = record.history.outcome
    assert (outcome == OK).sum() > 100
    assert (outcome == UNKNOWN).any()
    assert (outcome == FAIL).any()
    assert [event.kind for event in record.events] == [LOST]
    assert record.lost_parts == ("node 0: the server ended with SIGKILL",)
    assert not summary["valid"]
    assert summary["consistency"]["verdict"] == "valid"
    assert record.nodes[0].operations[-1] == 0
    assert record.nodes[0].contents_digest == ""


@pytest.mark.serial
def test_a_full_server_refuses_or_evicts(runtime: ray_cluster.RayRuntime) -> None:
    workload = {"name": "ycsb", "mix": "a", "keys": 6000, "value_size": "1KiB"}
    with pytest.raises(InfeasibleError, match="6000 keys of the workload do not fit") as caught:
        observe(runtime, parts(workload=workload, maxmemory="4MiB"))
    assert caught.value.path == "system.maxmemory"
    made = parts(workload=workload, maxmemory="4MiB", maxmemory_policy="allkeys-lru")
    record, summary = observe(runtime, made)
    assert 0.1 < summary["cache"]["hit_ratio"] < 1.0
    assert summary["cache"]["evictions"] > 100
    assert summary["consistency"]["claimed"] == "none"
    assert (record.history.outcome == OK).all()


@pytest.mark.serial
def test_faults_strike_real_servers(runtime: ray_cluster.RayRuntime) -> None:
    """A server that stops and one that dies: what it had in memory is lost, and told."""
    made = plan(
        load_mapping(
            {
                "experiment": "redis",
                "system": {"name": "redis", "replicas": 2},
                "workload": {"name": "ycsb", "mix": "a", "keys": 200, "inserts": 0.5},
                "arrival": {"name": "poisson", "rate": "200/s"},
                "client": {"timeout": "500ms"},
                "warmup": "0s",
                "duration": "4s",
                "faults": [
                    {"name": "pause", "target": "0", "at": "1s", "lasts": "500ms"},
                    {"name": "crash", "target": "0", "at": "2500ms", "restart_after": "300ms"},
                ],
            }
        )
    )
    record = runtime.run(made)
    assert not record.lost_parts
    history = record.history
    second = history.intended_ns // NS_PER_S
    paused = (history.intended_ns > 1.1 * NS_PER_S) & (history.intended_ns < 1.4 * NS_PER_S)
    late_ns = history.returned_ns[paused] - history.intended_ns[paused]
    assert late_ns.min() > 50_000_000
    assert (history.outcome[(second == 3) & (history.phase != PHASE_FINAL)] == OK).mean() > 0.3
    lost = survival(history).lost
    assert lost is not None and len(lost) > 20
    assert made.system.claims(made.circumstances) == frozenset()
