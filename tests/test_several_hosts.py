"""A cluster of three hosts, with clocks of their own: network namespaces of this machine."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from orchestrator.store.parquet import Store

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "cluster" / "namespaces.sh"
ENVIRONMENT = {
    **os.environ,
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    "PYTHONPATH": str(ROOT),
    "ARCHBENCH_NET": "abt",
    "ARCHBENCH_SUBNET": "10.78.0",
    # Host 2 is seventeen minutes ahead of host 1, and host 3 of host 2.
    "ARCHBENCH_CLOCKS": "1000",
}
ENVIRONMENT.pop("RAY_ADDRESS", None)
LONGEST_SILENCE_S = 30.0
TRIALS = 8

pytestmark = [pytest.mark.serial, pytest.mark.timeout(240)]


def cluster(*words: str) -> str:
    """What the script says."""
    done = subprocess.run(
        [str(SCRIPT), *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def archbench(*words: str) -> list[str]:
    """The command that runs it on the first host."""
    return [str(SCRIPT), "in", "1", sys.executable, "-m", "orchestrator.cli", *words]


def ended(command: list[str]) -> subprocess.CompletedProcess[str]:
    """What a command on the hosts said, and its exit code."""
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False
    )


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[str]]:
    """The addresses of the hosts; the head is on the first."""
    allowed = (
        os.geteuid() == 0
        and not subprocess.run(
            ["unshare", "--net", "--time", "true"], capture_output=True, check=False, timeout=20
        ).returncode
    )
    if not allowed:
        pytest.skip("only root can make hosts out of namespaces")
    cluster("up", "3")
    yield [f"{ENVIRONMENT['ARCHBENCH_SUBNET']}.{number}" for number in (1, 2, 3)]
    cluster("down")


def written(folder: Path, **changes: Any) -> str:
    """A config file."""
    config: dict[str, Any] = {
        "experiment": "hosts",
        "runtime": "ray",
        "system": {
            "protocol": {"name": "raft"},
            "replicas": 3,
            "node": {"costs": "measured"},
        },
        "workload": {"name": "ycsb", "mix": "a", "keys": 100},
        "arrival": {"name": "constant", "rate": "200/s"},
        "clients": 3,
        "warmup": "500ms",
        "duration": "1500ms",
    }
    path = folder / "config.yaml"  # what is JSON is YAML, too
    path.write_text(json.dumps(config | changes))
    return str(path)


def test_histories_of_hosts_with_other_clocks_make_sense_together(
    hosts: list[str], tmp_path: Path
) -> None:
    done = ended(archbench("run", written(tmp_path), "--results", str(tmp_path / "r"), "--json"))
    result = json.loads(done.stdout)
    assert result["consistency"]["verdict"] == "valid", done.stderr
    assert result["consistency"]["claimed"] == "linearizable"
    assert result["outcomes"]["unknown"] == 0
    (row,) = Store(tmp_path / "r").table("runs").to_pylist()
    assert row["hosts"] == hosts
    # Known from round trips, so not exactly, but well enough to compare what clients saw.
    assert 0 < row["clock_uncertainty_s"] < 0.1
    nodes = Store(tmp_path / "r").table("nodes").to_pylist()
    assert sorted({node["host"] for node in nodes}) == hosts


# A way of 5 ms to and from every host but the own, when it is asked for the time.
FAR_AWAY = """
import sys, time
from orchestrator.runtimes import _host_clock
read_clock = _host_clock.read_clock

def from_afar(ask_ns, *options):
    def asked_ns():
        time.sleep(0.005)
        said_ns = ask_ns()
        time.sleep(0.005)
        return said_ns
    return read_clock(asked_ns, *options)

_host_clock.read_clock = from_afar
from orchestrator import cli
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.long
def test_clocks_that_are_known_too_badly(hosts: list[str], tmp_path: Path) -> None:
    """Latencies of a millisecond, and times that are known to some five."""
    inside = [str(SCRIPT), "in", "1", sys.executable, "-c", FAR_AWAY]
    done = ended([*inside, "run", written(tmp_path), "--results", str(tmp_path / "r"), "--json"])
    result = json.loads(done.stdout)
    assert done.returncode == 1 and not result["valid"], done.stderr
    assert "clocks of clients' hosts are known to" in " ".join(result["invalid_reasons"])


@pytest.mark.long
def test_repeats_use_the_hosts_in_turn(hosts: list[str], tmp_path: Path) -> None:
    results = ("--results", str(tmp_path / "r"))
    done = ended(archbench("run", written(tmp_path), "--repeat", "3", *results, "--json"))
    found = json.loads(done.stdout)
    places = [each["placement"] for each in found["repeats"]]
    for node in ("n0", "n1", "n2"):
        assert sorted(place[node] for place in places) == hosts, done.stderr
    # Each has its own.
    assert found["placement"] is None


def test_doctor_looks_at_every_host(hosts: list[str]) -> None:
    done = ended(archbench("doctor", "--json"))
    assert done.returncode == 0, done.stdout
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["authentication"]["ok"]
    for host in hosts:
        assert "packages as here" in checks[f"host {host}"]["detail"]
        assert f"host {host} timer" in checks


def lines(pipe: IO[str]) -> Iterator[tuple[float, str]]:
    """What a program says, and when."""
    for line in pipe:
        yield time.monotonic(), line


@pytest.mark.long
def test_a_study_outlives_a_host_and_uses_it_again(hosts: list[str], tmp_path: Path) -> None:
    config = written(
        tmp_path,
        clients=1,
        warmup="300ms",
        duration="1200ms",
        slo={"p99": "5s"},
        tune={
            "objectives": [{"metric": "throughput_ops", "direction": "maximize"}],
            "search": {"arrival.rate": {"type": "float", "low": "100/s", "high": "300/s"}},
        },
    )
    results = tmp_path / "r"
    words = ("tune", config, "--trials", str(TRIALS), "--study", "s", "--results", str(results))
    moments = [time.monotonic()]
    told = ""
    with subprocess.Popen(
        archbench(*words), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as study:
        assert study.stderr is not None
        for at_s, line in lines(study.stderr):
            if not line.startswith("["):
                continue
            moments.append(at_s)
            told += line
            if line.startswith("[2/"):
                time.sleep(0.7)
                cluster("cut", "3")
            elif line.startswith("[3/"):
                cluster("mend", "3")
                cluster("start", "3")
        # A busy machine may leave no trial feasible.
        assert study.wait(60) in (0, 1)
    assert len(moments) == TRIALS + 1
    gaps_s = [after - before for before, after in itertools.pairwise(moments)]
    assert max(gaps_s) < LONGEST_SILENCE_S
    trials = Store(results).table("trials").to_pylist()
    assert len(trials) == TRIALS
    assert {trial["state"] for trial in trials} <= {"complete", "infeasible"}
    assert sum(trial["lost_runs"] for trial in trials) >= 1
    # What is noticed first depends on what was under way: a call, the load, or the heartbeat.
    assert re.search(r"run again after it lost a part: .*(answer|died|progress|lost)", told), told
    by_run: dict[str, set[str]] = {}
    for node in Store(results).table("nodes").to_pylist():
        by_run.setdefault(node["run_id"], set()).add(node["host"])
    used = [by_run[trial["run_id"]] for trial in sorted(trials, key=lambda t: t["number"])]
    assert used[0] == set(hosts)
    assert used[2] == set(hosts[:2])
    assert used[-1] == set(hosts)
