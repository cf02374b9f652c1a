"""Predictions: what the simulation of a real run is told, and which pairs count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy
import pytest

from orchestrator._pairs import PAIRS_MAX, Pair, valid_pairs
from orchestrator.config.load import ConfigSource
from orchestrator.config.profile import write_profile
from orchestrator.config.schema import RAY, Config
from orchestrator.core.host_profile import HostProfile, ProtocolCosts
from orchestrator.core.record import ProcessUsage
from orchestrator.predict import predict
from orchestrator.run import Runner

LATE = "operations were sent late"


@dataclass
class Runs:
    """Stands in for a runner: what real runs say of themselves, in turn, and what was asked."""

    valid: Callable[[int], bool]
    loops_ns: tuple[tuple[int, ...], ...]
    asked: list[Config]

    store = SimpleNamespace(results="nowhere")

    def run_surely(self, config: Config, lost: object) -> SimpleNamespace:
        """One that says whether it is valid, and was as fast as its seed is high."""
        real = config.runtime == RAY
        valid = not real or self.valid(sum(each.runtime == RAY for each in self.asked))
        self.asked.append(config)
        latency_ms = {"all": dict.fromkeys(("mean", "p50", "p90", "p99"), 1.0)}
        summary = {
            "throughput_ops": float(config.seed),
            "latency_ms": latency_ms,
            "offered_ops": 1.0,
            "bottleneck": None,
            "run_id": f"{config.runtime}-{config.seed}",
            "valid": valid,
            "invalid_reasons": [] if valid else [LATE],
        }
        used = [ProcessUsage(1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, each) for each in self.loops_ns]
        nodes = [SimpleNamespace(usage=each) for each in used[:-1]]
        record = SimpleNamespace(nodes=nodes, clients=[SimpleNamespace(usage=used[-1])])
        return SimpleNamespace(summary=summary, record=record)


def predicted(
    valid: Callable[[int], bool], profile: str | None = None, loops_ns: Any = ((18_000,),) * 4
) -> tuple[dict[str, Any], list[Config]]:
    """The only point of a prediction of three pairs, and what was run for it."""
    source = ConfigSource.of({"seed": 7, "system": {"protocol": {"name": "raft"}, "replicas": 3}})
    runs = Runs(valid, loops_ns, [])
    done = predict(source, cast(Runner, runs), profile=profile, repeats=3)
    return done.as_json()["points"][0] | {"good": done.good}, runs.asked


def test_pairs_are_three_and_run_in_turn_with_common_seeds() -> None:
    point, asked = predicted(lambda _: True)
    assert [(each.runtime, each.seed) for each in asked] == [
        (runtime, seed) for seed in (7, 8, 9) for runtime in ("ray", "sim")
    ]
    ids = {runtime: [f"{runtime}-{seed}" for seed in (7, 8, 9)] for runtime in ("sim", "ray")}
    assert point["run_ids"] == ids
    assert point["good"] and point["left_out"] == [] == point["invalid_reasons"]


def test_a_pair_whose_real_run_is_not_valid_is_made_again_and_left_out() -> None:
    point, asked = predicted(lambda number: number != 1)
    assert len(asked) == 8
    assert point["run_ids"]["ray"] == ["ray-7", "ray-9", "ray-10"]
    assert point["ray"]["throughput_ops"] == pytest.approx(numpy.mean([7, 9, 10]))
    assert point["good"] and point["left_out"] == [LATE] and point["invalid_reasons"] == []


def test_one_pair_alone_that_is_not_valid_is_made_again_once() -> None:
    made: list[Pair] = [({"seed": number}, {"seed": number}) for number in range(5)]
    for valid, kept, others in ((0, made[:1], []), (1, made[1:2], made[:1]), (2, [], made[:2])):
        good = made[valid]
        assert valid_pairs(made.__getitem__, good.__eq__, 1) == (kept, others)


def test_where_no_real_run_is_valid_all_count_and_it_is_said() -> None:
    point, asked = predicted(lambda _: False)
    # None are made again: what is wrong is no bad moment of the host.
    assert len(asked) == 2 * 3
    assert len(point["run_ids"]["ray"]) == 3
    assert not point["good"] and point["left_out"] == []
    assert point["invalid_reasons"] == [LATE] * 3


def test_there_is_an_end_to_making_pairs_again() -> None:
    point, asked = predicted(lambda number: number % 3 == 0)
    assert len(asked) == 2 * PAIRS_MAX * 3
    assert point["run_ids"]["ray"] == ["ray-7", "ray-10"]
    assert len(point["left_out"]) == PAIRS_MAX * 3 - 2


@pytest.mark.parametrize(
    ("loops_ns", "told"),
    [
        (((18_000,), (36_000,), (18_000,), (20_000,)), [18_000, 36_000, 18_000, 20_000]),
        # Nobody tells of one of them: all are told the same.
        (((20_000,), (20_000,), (), (20_000,)), [20_000]),
        (((20_000,), (20_000,)), [20_000]),
        (((), (), (), ()), []),
    ],
)
def test_the_simulation_is_told_how_fast_cores_were(
    tmp_path: Path, loops_ns: Any, told: list[int]
) -> None:
    path = str(tmp_path / "h.yaml")
    costs = {"raft": ProtocolCosts(client=1000)}
    host = HostProfile(loop=(18_000,), wake=(1,), wake_deep=(1,), fsync=(1,), protocols=costs)
    write_profile(host, path)
    _, asked = predicted(lambda _: True, path, loops_ns)
    assert all(each.hosts.loops == () for each in asked[::2])
    assert [set(each) for each in asked[1].hosts.loops] == [{each} for each in told]
    assert all(each.hosts.loops == () for each in predicted(lambda _: True, None, loops_ns)[1])
