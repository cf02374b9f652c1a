"""A small run in virtual time, for the tests of whatever runs something."""

from __future__ import annotations

from typing import Any, Final

from orchestrator.config.load import load_mapping
from orchestrator.config.schema import Config

BASE: Final[dict[str, Any]] = {
    "experiment": "small",
    "runtime": "sim",
    "system": {
        "name": "replicated_store",
        "protocol": {"name": "raft"},
        "replicas": 3,
        "node": {"cpu": {"read": "100us", "write": "100us"}},
    },
    "workload": {"name": "ycsb", "mix": "a", "keys": 200},
    "arrival": {"name": "closed", "sessions": 8},
    "warmup": "100ms",
    "duration": "300ms",
}

YAML: Final = """\
experiment: small
runtime: sim
system:
  name: replicated_store
  protocol: {name: raft}
  replicas: 3
  node: {cpu: {read: 100us, write: 100us}}
workload: {name: ycsb, mix: a, keys: 200}
arrival: {name: closed, sessions: 8}
warmup: 100ms
duration: 300ms
"""


def small(*overrides: str) -> Config:
    """A run of a few thousand operations."""
    return load_mapping(BASE, *overrides)
