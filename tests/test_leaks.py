"""One driver makes hundreds of runs, and holds no more afterwards than after the first ones."""

from __future__ import annotations

import gc
import os
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.config.load import load_mapping
from orchestrator.config.schema import Config
from orchestrator.run import Runner

WARM, RUNS = 50, 500
RESIDENT_GROWTH_BYTES = 24 << 20
"""Over 450 runs: allocators round up, Ray keeps some tables; a leak of a history would be more."""


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in use."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(line for line in lines if line.startswith("VmRSS")).split()[1]
    return int(kib) * 1024


def files_of(pid: int) -> int:
    """How many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def descendants(root: int) -> dict[int, str]:
    """Process id -> name of all that the process has started, directly or not."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            pid = int(entry.name)
            parents[pid] = int(text.rpartition(")")[2].split()[1])
            names[pid] = text.partition("(")[2].rpartition(")")[0]
    family = {root}
    for _ in range(8):
        family |= {pid for pid, parent in parents.items() if parent in family}
    return {pid: names[pid] for pid in family - {root}}


@dataclass
class Held:
    """What a driver and its actors hold."""

    driver_files: int
    driver_threads: int
    driver_resident_bytes: int
    actors: int
    actor_files: int
    actor_threads: int
    actors_resident_bytes: int
    processes: int
    folders: int
    placement_groups: int


def held(runner: Runner) -> Held:
    gc.collect()
    members = [m for batch in runner.runtime()._pool._batches for m in batch.members]
    pids = ray.get([member.actor.process_id.remote() for member in members], timeout=20)
    groups = ray.util.placement_group_table()
    return Held(
        driver_files=files_of(os.getpid()),
        driver_threads=threading.active_count(),
        driver_resident_bytes=resident_bytes(os.getpid()),
        actors=len(members),
        actor_files=sum(map(files_of, pids)),
        actor_threads=sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids),
        actors_resident_bytes=sum(map(resident_bytes, pids)),
        processes=len(descendants(os.getpid())),
        folders=len(list(Path("/tmp").glob("archbench-process-*"))),
        placement_groups=sum(group["state"] == "CREATED" for group in groups.values()),
    )


def config(number: int) -> Config:
    """Faults every tenth run: a process killed and born again may leak, too."""
    struck = number % 10 == 0
    crash = {"name": "crash", "target": "0", "at": "100ms", "restart_after": "50ms"}
    data: dict[str, Any] = {
        "experiment": "leaks",
        "runtime": "ray",
        "seed": number,
        "system": {
            "protocol": {"name": "raft", "election_timeout": "100ms", "heartbeat": "20ms"},
            "replicas": 3,
            "node": {"costs": "measured", "storage": {"durability": "fsync"}},
        },
        "workload": {"keys": 50},
        "arrival": {"name": "constant", "rate": "500/s"},
        "client": {"timeout": "300ms"},
        "clients": 2,
        "warmup": "50ms",
        "duration": "200ms",
        "faults": [crash] if struck else [],
    }
    return load_mapping(data)


@pytest.mark.long
@pytest.mark.serial
@pytest.mark.timeout(2400)
def test_hundreds_of_runs_leave_nothing_behind(tmp_path: Path) -> None:
    with Runner(tmp_path) as runner:
        for number in range(1, WARM + 1):
            runner.run(config(number))
        before = held(runner)
        lost: list[str] = []
        for number in range(WARM + 1, RUNS + 1):
            lost += runner.run(config(number)).record.lost_parts
        after = held(runner)
    for name, value in asdict(before).items():
        sys.stdout.write(f"{name}: {value} after {WARM}, {asdict(after)[name]} after {RUNS}\n")
    assert not lost
    exact = ("driver_files", "actors", "processes", "folders", "placement_groups")
    for name in exact:
        assert getattr(after, name) <= getattr(before, name), name
    # A child that is being watched has a thread and a file until it is over.
    assert after.driver_threads <= before.driver_threads + 1
    assert after.actor_threads <= before.actor_threads + after.actors
    assert after.actor_files <= before.actor_files + after.actors
    for name in ("driver_resident_bytes", "actors_resident_bytes"):
        assert getattr(after, name) < getattr(before, name) + RESIDENT_GROWTH_BYTES, name
