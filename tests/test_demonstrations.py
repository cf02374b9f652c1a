"""What configs/demonstrations/ are there to show, they show; on loads that are cut short."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from orchestrator.analysis.moves import move_figures
from orchestrator.analysis.resilience import course_of
from orchestrator.config.load import ConfigSource
from orchestrator.core.history import History
from orchestrator.core.machine import OK
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.runtimes import simulated
from orchestrator.runtimes._parts import Parts

FOLDER = Path(__file__).resolve().parent.parent / "configs" / "demonstrations"


def history_of(name: str, *overrides: str) -> History:
    source = ConfigSource.read(str(FOLDER / name)).with_overrides(*overrides)
    return simulated.run(Parts.of(source.build())).history


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_is_a_sweep_that_may_run(path: Path) -> None:
    config = ConfigSource.read(str(path)).build()
    assert config.sweep
    Parts.of(config).system.validate(100)


def test_two_choices_shorten_the_tail() -> None:
    p99_ms = {}
    for balancer in ("{name: random}", "{name: power_of_d, d: 2}", "{name: power_of_d, d: 3}"):
        history = history_of(
            "two_choices.yaml", f"system.balancer={balancer}", "warmup=500ms", "duration=1500ms"
        )
        took_ns = (history.returned_ns - history.intended_ns)[history.intended_ns > NS_PER_S // 2]
        p99_ms[balancer] = float(numpy.quantile(took_ns, 0.99)) / NS_PER_MS
    one, two, three = p99_ms.values()
    assert two < one / 2
    assert two / 2 < three < two


def test_shedding_keeps_the_service_useful_in_a_flash_crowd() -> None:
    good: dict[str, float] = {}
    for queue in ("null", "{name: fifo, limit: 1000}", "{name: controlled_delay}"):
        history = history_of("flash_crowd.yaml", f"system.node.queue={queue}", "duration=13s")
        crowd = history.intended_ns >= 5 * NS_PER_S
        in_time = history.returned_ns - history.intended_ns <= 50 * NS_PER_MS
        well = crowd & in_time & (history.outcome == OK)
        good[queue] = float(well.sum() / crowd.sum())
    endless, long, controlled = good.values()
    assert endless < 0.1 < long < 0.4
    assert controlled > 0.6


def test_one_fetch_is_enough_for_all_who_miss() -> None:
    p99_ms, late = {}, {}
    for single, early in (("false", 0), ("true", 0), ("true", 1)):
        history = history_of(
            "stampede.yaml",
            f"system.tier.pattern.single_flight={single}",
            f"system.tier.early_refresh={early}",
            "duration=7s",
        )
        took_ns = history.returned_ns - history.intended_ns
        p99_ms[single, early] = float(numpy.quantile(took_ns, 0.99)) / NS_PER_MS
        late[single, early] = int((took_ns > NS_PER_S // 10).sum())
    assert late["false", 0] > 50
    assert late["true", 0] == late["true", 1] == 0
    assert p99_ms["true", 1] < 1 < p99_ms["true", 0] < p99_ms["false", 0]


def test_a_budget_ends_a_storm_of_retries() -> None:
    late: dict[str, float] = {}
    for share in ("null", "0.1"):
        history = history_of("retry_storm.yaml", f"client.retry.budget.share={share}")
        end = (history.intended_ns >= 20 * NS_PER_S) & (history.intended_ns < 25 * NS_PER_S)
        in_time = history.returned_ns - history.intended_ns <= 100 * NS_PER_MS
        late[share] = 1 - float((in_time & (history.outcome == OK))[end].mean())
    assert late["null"] > 0.95
    assert late["0.1"] < 0.01


def test_a_shard_is_added_under_load_and_a_ring_moves_the_least() -> None:
    least = ("workload.keys=2000", "arrival.rate=2000/s", "warmup=0s", "duration=1s")
    moved, waited_ms = {}, {}
    for name, portions in (("ring", 16), ("hash_ranges", 16), ("modulo", 16), ("modulo", 1)):
        source = ConfigSource.read(str(FOLDER / "added_shard.yaml"))
        config = source.with_overrides(
            f"system.sharding.name={name}",
            f"system.moving.portions={portions}",
            "system.administration=[{command: add_shard, shard: 3, at: 400ms}]",
            "system.moving.piece=4KiB",
            *least,
        ).build()
        record = simulated.run(Parts.of(config))
        (move,) = move_figures(record, config, course_of(record, config))
        assert move["ended_s"] is not None and move["operations_lost"] == 0
        moved[name] = move["keys"] / 2000
        waited_ms[name, portions] = move["held_ms"]["max"]
    assert moved["ring"] == pytest.approx(1 / 4, abs=0.06)
    assert moved["hash_ranges"] == pytest.approx(1 / 2, abs=0.06)
    assert moved["modulo"] == pytest.approx(3 / 4, abs=0.06)
    assert waited_ms["modulo", 16] < waited_ms["modulo", 1] / 2
