"""The simulator against closed forms of queueing theory (Kleinrock, Queueing Systems).

One unreplicated node, Poisson arrivals, no network delay: response times in units of the mean
service time.
"""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray

from orchestrator.analysis.summary import digest
from orchestrator.config.load import load_mapping
from orchestrator.core.machine import OK
from orchestrator.runtimes import simulated
from orchestrator.runtimes._parts import Parts

SERVICE_MS = 1.0


def responses(
    service: dict[str, Any], load: float, cores: int = 1, arrivals: int = 200_000, seed: int = 7
) -> NDArray[numpy.float64]:
    """Response times over the mean service time, after a warm-up of a fifth."""
    rate = load * cores * 1000 / SERVICE_MS
    seconds = arrivals / rate
    config = {
        "experiment": "truth",
        "seed": seed,
        "runtime": "sim",
        "system": {
            "name": "replicated_store",
            "node": {"cores": cores, "cpu": {"read": service, "write": service}},
        },
        "workload": {"name": "ycsb", "mix": "c", "keys": 100},
        "arrival": {"name": "poisson", "rate": f"{rate}/s"},
        "client": {"timeout": "100s"},
        "warmup": f"{seconds / 5}s",
        "duration": f"{seconds}s",
    }
    history = simulated.run(Parts.of(load_mapping(config))).history
    assert (history.outcome == OK).all()
    measured = history.intended_ns >= seconds / 5 * 1e9
    latency_ns = (history.returned_ns - history.intended_ns)[measured]
    return numpy.asarray(latency_ns / (SERVICE_MS * 1e6))


EXPONENTIAL = {"name": "exponential", "mean": f"{SERVICE_MS}ms"}
CONSTANT = {"name": "constant", "value": f"{SERVICE_MS}ms"}
# Two exponential branches with mean 1 and squared coefficient of variation 4, balanced means:
# p = (1 + sqrt(3/5)) / 2 with mean 1 / (2p), else 1 / (2(1-p)).
_P = (1 + math.sqrt(3 / 5)) / 2
HYPEREXPONENTIAL = {
    "name": "mixture",
    "parts": [
        {"weight": _P, "name": "exponential", "mean": f"{SERVICE_MS / (2 * _P)}ms"},
        {"weight": 1 - _P, "name": "exponential", "mean": f"{SERVICE_MS / (2 * (1 - _P))}ms"},
    ],
}


@pytest.mark.parametrize(
    ("load", "mean", "p99"),
    [pytest.param(0.5, 2, 9.2103, marks=pytest.mark.long), (0.8, 5, 23.0259)],
)
def test_m_m_1(load: float, mean: float, p99: float) -> None:
    times = responses(EXPONENTIAL, load)
    assert times.mean() == pytest.approx(mean, rel=0.03)
    assert numpy.percentile(times, 99) == pytest.approx(p99, rel=0.03)


@pytest.mark.parametrize(
    ("load", "mean"),
    [
        pytest.param(0.5, 1.5, marks=pytest.mark.long),
        (0.8, 3.0),
        pytest.param(0.9, 5.5, marks=pytest.mark.long),
    ],
)
def test_m_d_1(load: float, mean: float) -> None:
    assert responses(CONSTANT, load).mean() == pytest.approx(mean, rel=0.03)


@pytest.mark.long
def test_pollaczek_khinchine_with_a_varying_service() -> None:
    times = responses(HYPEREXPONENTIAL, 0.5, arrivals=1_000_000)
    assert times.mean() == pytest.approx(3.5, rel=0.03)


@pytest.mark.parametrize(
    ("cores", "offered", "waiting"),
    [pytest.param(2, 1, 1 / 3, marks=pytest.mark.long), (3, 2, 4 / 9)],
)
def test_m_m_c_with_erlang_c(cores: int, offered: float, waiting: float) -> None:
    times = responses(EXPONENTIAL, offered / cores, cores)
    mean = 1 + waiting / (cores - offered)
    assert times.mean() == pytest.approx(mean, rel=0.03)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("service", "load", "mean"),
    [(EXPONENTIAL, 0.9, 10), (HYPEREXPONENTIAL, 0.8, 11), (HYPEREXPONENTIAL, 0.9, 23.5)],
    ids=["m-m-1-.9", "m-g-1-.8", "m-g-1-.9"],
)
def test_heavy_load_with_many_arrivals(service: dict[str, Any], load: float, mean: float) -> None:
    times = responses(service, load, arrivals=5_000_000)
    assert times.mean() == pytest.approx(mean, rel=0.03)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("cores", "offered", "waiting"), [(5, 4, 0.554113), (10, 9, 0.668732)])
def test_many_servers(cores: int, offered: float, waiting: float) -> None:
    times = responses(EXPONENTIAL, offered / cores, cores, arrivals=5_000_000)
    assert times.mean() == pytest.approx(1 + waiting / (cores - offered), rel=0.03)


_DIGEST = """
from orchestrator.analysis.summary import digest
from orchestrator.config.load import load_mapping
from orchestrator.runtimes import simulated
from orchestrator.runtimes._parts import Parts
system = {"name": "replicated_store", "protocol": {"name": "raft"}, "replicas": 3}
config = {"experiment": "same", "runtime": "sim", "system": system, "seed": SEED,
          "warmup": "100ms", "duration": "400ms"}
print(digest(simulated.run(Parts.of(load_mapping(config)))))
"""


def _digest(seed: int, hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _DIGEST.replace("SEED", str(seed))],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
    )
    return done.stdout.strip()


def test_same_seed_gives_the_same_digest_in_every_process() -> None:
    assert _digest(5, "1") == _digest(5, "2")
    assert _digest(5, "1") != _digest(6, "1")


def test_closed_load_keeps_the_interactive_response_time_law() -> None:
    config = {
        "experiment": "closed",
        "runtime": "sim",
        "system": {"name": "replicated_store", "node": {"cpu": {"read": EXPONENTIAL}}},
        "workload": {"name": "ycsb", "mix": "c", "keys": 100},
        "arrival": {"name": "closed", "sessions": 4, "think_time": "10ms"},
        "warmup": "5s",
        "duration": "60s",
    }
    record = simulated.run(Parts.of(load_mapping(config)))
    history = record.history
    measured = history.intended_ns >= record.warmup_ns
    response_s = (history.returned_ns - history.intended_ns)[measured].mean() / 1e9
    throughput = measured.sum() / 60
    # Little's law over the whole loop: N = X (R + Z).
    assert throughput * (response_s + 0.010) == pytest.approx(4, rel=0.02)
    assert len(digest(record)) > 0
