"""What becomes of runs when the parts that measure are killed: they say so, and are made again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.config.load import load_mapping
from orchestrator.config.schema import Config
from orchestrator.core.record import RunRecord
from orchestrator.errors import ClusterLost, PartLost
from orchestrator.plan import plan
from orchestrator.run import RUNS_MAX, Runner
from orchestrator.runtimes import _pool
from orchestrator.runtimes._lifetime import OwnFolder
from orchestrator.runtimes._member import Member, gather
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._placement import placed, turned
from orchestrator.runtimes._pool import HostWarning, Pool
from orchestrator.runtimes.ray_cluster import RayRuntime
from orchestrator.study.leases import start_ticks


def config(duration: str = "2s") -> Config:
    return load_mapping(
        {
            "experiment": "lost",
            "runtime": "ray",
            "system": {
                "protocol": {"name": "raft"},
                "replicas": 3,
                "node": {"costs": "measured"},
            },
            "workload": {"keys": 50},
            "arrival": {"name": "constant", "rate": "100/s"},
            "clients": 2,
            "warmup": "500ms",
            "duration": duration,
        }
    )


# --- where parts go ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "nodes", "clients", "expected"),
    [
        ("a", 3, 2, ("aaa", "aa")),
        ("abc", 3, 1, ("abc", "c")),
        ("abc", 2, 2, ("ab", "cc")),
        ("abcd", 2, 3, ("ab", "cdc")),
        ("abc", 4, 3, ("abca", "cba")),
        ("ab", 1, 1, ("a", "b")),
    ],
)
def test_nodes_are_spread_and_clients_keep_off_their_hosts(
    hosts: str, nodes: int, clients: int, expected: tuple[str, str]
) -> None:
    of_nodes, of_clients = placed(hosts, nodes, clients)
    assert ("".join(of_nodes), "".join(of_clients)) == expected


@pytest.mark.parametrize(
    ("hosts", "nodes", "orders"),
    [
        ("a", 3, ["a", "a"]),
        ("abc", 3, ["abc", "bca", "cab", "abc"]),
        ("abc", 5, ["abc", "bca", "cab"]),
        # The last one is the driver's, which nodes keep off where they can.
        ("abcd", 2, ["abcd", "bcad", "cabd", "abcd"]),
        ("ab", 1, ["ab", "ab"]),
    ],
)
def test_repeats_use_the_hosts_in_turn(hosts: str, nodes: int, orders: list[str]) -> None:
    found = ["".join(turned(hosts, nodes, repeat)) for repeat in range(len(orders))]
    assert found == orders


def test_over_as_many_repeats_as_hosts_every_node_is_everywhere() -> None:
    hosts = "abc"
    repeats = [placed(turned(hosts, 3, repeat), 3, 1) for repeat in range(3)]
    for node in range(3):
        assert {of_nodes[node] for of_nodes, _ in repeats} == set(hosts)
    assert {of_clients[0] for _, of_clients in repeats} == set(hosts)


# --- running again ----------------------------------------------------------------------


class Losing(Runner):
    """Loses a part in its first ``losses`` runs: raising it, or noting it in the record."""

    def __init__(self, losses: int, *, raising: bool) -> None:
        super().__init__("nowhere")
        self.losses, self.raising, self.runs = losses, raising, 0

    def run(self, config: Config | Parts, *, seed: int | None = None, repeat: int = 0) -> Any:
        self.runs += 1
        lost = self.runs <= self.losses
        if lost and self.raising:
            raise PartLost(f"loss {self.runs}")

        class Result:
            class record:
                lost_parts = (f"loss {self.runs}",) if lost else ()

        return Result


@pytest.mark.parametrize("raising", [True, False])
def test_a_run_that_lost_a_part_is_made_again(raising: bool) -> None:
    told: list[str] = []
    runner = Losing(RUNS_MAX - 1, raising=raising)
    result = runner.run_surely(config(), told.append)
    assert not result.record.lost_parts
    assert told == [f"loss {number}" for number in range(1, RUNS_MAX)]


def test_a_run_that_loses_a_part_every_time_is_told_as_it_is() -> None:
    with pytest.raises(PartLost, match=f"loss {RUNS_MAX}"):
        Losing(99, raising=True).run_surely(config())
    runner = Losing(99, raising=False)
    assert runner.run_surely(config()).record.lost_parts == (f"loss {RUNS_MAX}",)
    assert runner.runs == RUNS_MAX


# --- folders ----------------------------------------------------------------------------


def test_folders_of_killed_processes_are_removed_and_those_of_others_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    long_ago = time.time() - 3600
    kept = OwnFolder()
    abandoned = tmp_path / "archbench-process-left"
    foreign = tmp_path / "archbench-mine"
    for folder in (abandoned, foreign):
        folder.mkdir()
        (folder / "node0.log").write_text("x")
    for path in (abandoned, foreign, Path(kept.path)):
        os.utime(path, (long_ago, long_ago))
    young = tmp_path / "archbench-process-young"
    young.mkdir()
    other = OwnFolder()
    assert {path.name for path in tmp_path.iterdir()} == {
        Path(kept.path).name,
        Path(other.path).name,
        "archbench-mine",
        "archbench-process-young",
    }
    kept.remove()
    assert not Path(kept.path).exists()
    other.remove()


# --- real processes ---------------------------------------------------------------------


def process_of(member: Member) -> int:
    """The worker process of an actor."""
    pid: int = ray.get(member.actor.process_id.remote(), timeout=20)
    return pid


def children_of(pid: int) -> list[int]:
    """Process ids of its children, whichever thread made them."""
    paths = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for path in paths for word in path.read_text().split()]


def run_while(runtime: RayRuntime, parts: Parts, strike: Callable[[Any], None]) -> RunRecord:
    """A run that is struck half a second after its start."""
    with runtime.deployed(parts) as deployment:
        timer = threading.Timer(0.5, strike, (deployment,))
        deployment.start()
        timer.start()
        deployment.wait()
        record = deployment.collect(False, 0)
        timer.join()
    return record


@pytest.mark.serial
def test_a_run_names_the_actors_that_it_lost_and_the_next_has_new_ones(
    runtime: RayRuntime,
) -> None:
    parts = plan(config())
    began_s = time.monotonic()

    def kill(deployment: Any) -> None:
        for member in (deployment._clients[0], deployment._nodes[2]):
            os.kill(process_of(member), signal.SIGKILL)

    record = run_while(runtime, parts, kill)
    assert len(record.lost_parts) == 2
    assert record.lost_parts[0].startswith("client 0: ")
    assert record.lost_parts[1].startswith("node 2: ")
    assert set(record.history.client.tolist()) == {1}
    assert len(record.nodes) == 2
    again = runtime.run(parts)
    assert not again.lost_parts
    assert set(again.history.client.tolist()) == {0, 1}
    assert time.monotonic() - began_s < 60


@pytest.mark.serial
def test_an_actor_whose_fork_server_died_is_replaced(runtime: RayRuntime) -> None:
    parts = plan(config())
    members, _ = runtime._pool.members(3, 2)
    victim = process_of(members[0])
    (server,) = children_of(victim)
    os.kill(server, signal.SIGKILL)
    deadline_s = time.monotonic() + 10
    while start_ticks(server) is not None and time.monotonic() < deadline_s:
        time.sleep(0.01)
    record = runtime.run(parts)
    assert not record.lost_parts
    assert victim not in {process_of(member) for member in runtime._pool.members(3, 2)[0]}


@pytest.mark.serial
def test_a_silent_host_is_not_waited_for(runtime: RayRuntime) -> None:
    members, _ = runtime._pool.members(2, 0)
    silent = Member(members[0].actor, "10.0.0.9", "elsewhere", "clock", lambda: True)
    pid = process_of(members[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        asked = [silent.actor.clock_ns.remote(), members[1].actor.clock_ns.remote()]
        answers = gather([silent, members[1]], asked, 20.0, "asking")
        assert time.monotonic() - began_s < 5
    finally:
        os.kill(pid, signal.SIGCONT)
    assert isinstance(answers[0], PartLost)
    assert "host 10.0.0.9 does not answer" in str(answers[0])
    assert isinstance(answers[1], int)


@pytest.mark.serial
def test_a_head_that_does_not_answer_is_told_within_seconds(
    runtime: RayRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    monkeypatch.setattr(ray, "nodes", lambda: over.wait(20) and [])
    monkeypatch.setattr(_pool, "HEAD_S", 0.3)
    with pytest.raises(ClusterLost, match="head of the Ray cluster does not answer"):
        runtime.run(plan(config()))
    over.set()


@pytest.mark.serial
def test_a_host_on_which_nothing_starts_is_left_out_for_a_while_and_named(
    runtime: RayRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second host that is not there: what was to go there goes to the first."""
    here = ray.get_runtime_context().get_node_id()
    ghost = "f" * len(here)
    monkeypatch.setattr(_pool, "_addresses", lambda: {ghost: "10.0.0.9", here: "127.0.0.1"})
    pool = Pool(runtime._pool._actor_class)
    try:
        with pytest.warns(HostWarning, match=r"host 10\.0\.0\.9 is left out for 60 s: placing"):
            nodes, clients = pool.members(2, 1)
        assert {member.host_id for member in nodes + clients} == {here}
        assert [len(each) for each in pool.members(2, 1)] == [2, 1]  # and is not tried again
    finally:
        pool.close()


@pytest.mark.serial
def test_members_are_reached_by_the_address_that_their_host_has_now(
    runtime: RayRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,), _ = runtime._pool.members(1, 0)
    assert before.host == "127.0.0.1"
    monkeypatch.setattr(_pool, "_addresses", lambda: {before.host_id: "192.0.2.7"})
    (after,), _ = runtime._pool.members(1, 0)
    assert (after.host, after.actor) == ("192.0.2.7", before.actor)
