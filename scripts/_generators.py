"""How fast ycsb draws operations, by choice of keys and mix."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from orchestrator.config.load import load_mapping
from orchestrator.core.registry import Family, plugins
from orchestrator.workloads.ycsb import MIXES, Ycsb

BLOCK: Final = 8192
BLOCKS: Final = 40
KEYS: Final = 100_000
ROUNDS: Final = 3
# What a choice cannot do without.
NEEDED: Final[dict[str, dict[str, Any]]] = {
    "flash_crowd": {"at_operation": 1_000_000, "lasts_operations": 1_000_000}
}


def generator(report: Any) -> None:
    """Operations drawn a second on one core: every choice of keys under every mix of ycsb."""
    slowest = float("inf")
    for name, rates in _rates():
        report.note(
            f"{name}: " + ", ".join(f"{m} {r / 1e6:.1f}" for m, r in rates.items()) + " M/s"
        )
        slowest = min(slowest, *rates.values())
    report.bar("slowest choice and mix", slowest, 2_000_000, "/s", least=True)


def _rates() -> Iterator[tuple[str, dict[str, float]]]:
    """Of each choice the operations a second of CPU, by mix; the best of ROUNDS."""
    for name in plugins(Family.KEYS):
        chosen = {"name": name} | NEEDED.get(name, {})
        yield name, {mix: _rate(chosen, mix) for mix in MIXES}


def _rate(chosen: dict[str, Any], mix: str) -> float:
    workload = {"name": "ycsb", "mix": mix, "keys": KEYS, "distribution": chosen}
    stream = Ycsb(load_mapping({"workload": workload}).workload.params).stream(1, 0, 1)
    best = 0.0
    for _ in range(ROUNDS):
        started_s = time.process_time()
        for _ in range(BLOCKS):
            stream.block(BLOCK)
        best = max(best, BLOCKS * BLOCK / (time.process_time() - started_s))
    return best
