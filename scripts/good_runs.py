"""How often rules of the validity verdict fire where nothing is wrong:
``python scripts/good_runs.py [--seeds N]``.

Fifty simulated runs of different protocols, arrivals and loads, all of them good; prints each
verdict that says otherwise, and exits 1 where more than two do. Takes some minutes a seed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from typing import Any, Final

from orchestrator.analysis.latency import measured_window
from orchestrator.analysis.validity import invalid_reasons
from orchestrator.config.load import load_mapping
from orchestrator.config.schema import Config
from orchestrator.plan import plan
from orchestrator.run import execute, judge

WRONG_MAX: Final = 2
SYSTEMS: Final[tuple[dict[str, Any], ...]] = (
    {"protocol": {"name": "unreplicated"}},
    {"protocol": {"name": "raft"}, "replicas": 3},
    {"protocol": {"name": "primary_backup"}, "replicas": 2},
    {"protocol": {"name": "chain"}, "replicas": 3},
    {"protocol": {"name": "quorum"}, "replicas": 3},
)
CLOSED: Final = {"name": "closed", "sessions": 16, "think_time": "2ms"}
LOADS: Final = (0.3, 0.6, 0.8, 0.9)
"""Of what the busiest node of the system can serve."""
BURSTS: Final = {"burst_lasts": "200ms", "calm_lasts": "800ms"}


def configs(seeds: int = 1) -> Iterator[tuple[str, Config]]:
    """Fifty of each seed, by names."""
    for seed, system in itertools.product(range(1, seeds + 1), SYSTEMS):
        name = system["protocol"]["name"]
        most = _most_ops(system)
        arrivals: list[dict[str, Any]] = [
            {"name": law, "rate": f"{load * most:.0f}/s"}
            for law in ("poisson", "constant")
            for load in LOADS
        ]
        arrivals.append(CLOSED)
        arrivals.append(
            {"name": "bursty", "burst": f"{0.9 * most:.0f}/s", "calm": f"{0.3 * most:.0f}/s"}
            | BURSTS
        )
        for number, arrival in enumerate(arrivals):
            label = f"{name}, {arrival['name']} {arrival.get('rate', '')}, seed {seed}"
            yield label, load_mapping(_config(system, arrival, 100 * seed + number))


def _most_ops(system: dict[str, Any]) -> float:
    """Operations/s of a closed load of many sessions."""
    parts = plan(load_mapping(_config(system, {"name": "closed", "sessions": 100}, 1)))
    window = measured_window(execute(parts), parts.config.client.timeout)
    return len(window.completed_ns) / window.length_s


def _config(system: dict[str, Any], arrival: dict[str, Any], seed: int) -> dict[str, Any]:
    cpu = {"name": "exponential", "mean": "400us"}
    node = {"cpu": {"read": cpu, "write": cpu, "message": "50us"}}
    return {
        "seed": seed,
        "runtime": "sim",
        "system": system | {"node": node, "network": {"delay": "100us"}},
        "workload": {"name": "ycsb", "mix": "a", "keys": 1000},
        "arrival": arrival,
        "clients": 2,
        "client": {"timeout": "10s"},
        "warmup": "1s",
        "duration": "10s",
        "slo": {"p50": "1s", "p99": "1s"},
    }


def verdict(config: Config) -> list[str]:
    """Why the run may not be believed."""
    parts = plan(config)
    record = execute(parts)
    window = measured_window(record, config.client.timeout)
    return invalid_reasons(window, config, judge(parts, record))


def main() -> int:
    """Run all; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    seeds = parser.parse_args().seeds
    wrong = count = 0
    for label, config in configs(seeds):
        reasons = verdict(config)
        count += 1
        wrong += bool(reasons)
        for reason in reasons:
            print(f"{label}: {reason}")
    print(f"{wrong} of {count} good runs were called invalid; at most {WRONG_MAX * seeds} may be")
    return int(wrong > WRONG_MAX * seeds)


if __name__ == "__main__":
    sys.exit(main())
