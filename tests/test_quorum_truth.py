"""Quorums against published figures: closed forms, and the latencies and staleness of PBS.

Bailis, Venkataraman, Franklin, Hellerstein and Stoica, "Probabilistically Bounded Staleness for
Practical Partial Quorums" (PVLDB 5(8), 2012): figures of their LNKD-SSD model, all four kinds of
message alike one way, zero service time, a coordinator that is no replica.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy
import pytest
from machine_bench import Bench
from numpy.typing import NDArray

from orchestrator.analysis.quorums import k_staleness, miss_probability, quorum_availability
from orchestrator.config.load import load_mapping
from orchestrator.core.history import History
from orchestrator.core.machine import OK, READ, WRITE, Op
from orchestrator.protocols.quorum import Params, Quorum
from orchestrator.runtimes import simulated
from orchestrator.runtimes._parts import Parts

# --- closed forms -----------------------------------------------------------------------


def test_availability_of_majorities_read_one_and_write_all() -> None:
    assert quorum_availability(3, 2, 0.99) == pytest.approx(0.999702, abs=1e-9)
    assert quorum_availability(5, 3, 0.99) == pytest.approx(0.9999901494, abs=1e-10)
    assert quorum_availability(3, 1, 0.99) == pytest.approx(0.999999, abs=1e-9)
    assert quorum_availability(3, 3, 0.99) == pytest.approx(0.970299, abs=1e-9)


def test_k_staleness_of_partial_quorums() -> None:
    assert k_staleness(3, 1, 1, 2) == pytest.approx(5 / 9, abs=1e-9)
    assert k_staleness(3, 1, 1, 3) == pytest.approx(19 / 27, abs=1e-9)


@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
def test_a_read_misses_as_often_as_enumerated_quorums_do(replicas: int) -> None:
    sizes = range(1, replicas + 1)
    for read, write in itertools.product(sizes, sizes):
        reads = list(itertools.combinations(range(replicas), read))
        newest = set(range(write))
        missed = sum(newest.isdisjoint(chosen) for chosen in reads) / len(reads)
        assert miss_probability(replicas, read, write) == pytest.approx(missed, abs=1e-12)
        assert (missed == 0) == (read + write > replicas)


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (quorum_availability, (3, 0, 0.9)),
        (quorum_availability, (3, 2, 1.1)),
        (miss_probability, (3, 4, 1)),
        (k_staleness, (3, 1, 1, 0)),
    ],
)
def test_sizes_and_probabilities_are_checked(call: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"between 1 and|no probability|below 1"):
        call(*arguments)


@pytest.mark.parametrize(("replicas", "needed"), [(3, 2), (5, 3), (3, 1), (3, 3)])
@pytest.mark.parametrize("kind", [READ, WRITE])
def test_a_strict_quorum_answers_as_often_as_the_formula_says(
    replicas: int, needed: int, kind: int
) -> None:
    """By every set of replicas that may be up, with the machine itself."""
    up, answered = 0.99, 0.0
    params = Params(needed, needed, coordinator="outside", versions="clock")
    for alive in itertools.product((False, True), repeat=replicas):
        bench = Bench(Quorum, params, replicas + 1, replicas=replicas)
        order = Quorum.candidates(params, Op(1, 1, kind, b"k"), _view(bench))
        (outside,) = order
        holders = [node for node in bench.nodes if node != outside]
        for node, lives in zip(holders, alive, strict=True):
            if not lives:
                bench.crash(node)
        handle = bench.request(outside, Op(1, 1, kind, b"k", b"v"))
        bench.deliver()
        if handle in bench.replies:
            answered += up ** sum(alive) * (1 - up) ** (replicas - sum(alive))
    assert answered == pytest.approx(quorum_availability(replicas, needed, up), abs=1e-12)


def _view(bench: Bench) -> Any:
    from orchestrator.core.machine import ClusterView

    return ClusterView(bench.nodes)


# --- PBS, LNKD-SSD ----------------------------------------------------------------------

LNKD_SSD = {
    "name": "mixture",
    "parts": [
        {"weight": 0.9122, "name": "pareto", "scale": "235us", "shape": 10},
        {"weight": 0.0878, "name": "exponential", "mean": f"{1e6 / 1.66}ns"},
    ],
}
# (R, W) -> 99.9th percentile of reads and of writes, ms.
PUBLISHED = {
    (1, 1): (0.66, 0.66),
    (1, 2): (0.66, 1.63),
    (2, 1): (1.63, 0.65),
    (2, 2): (1.62, 1.64),
}


def lnkd_ssd(read: int, write: int, sessions: int, operations: int, seed: int) -> History:
    """About so many operations, half of them writes, back to back in each session."""
    law_of = dict.fromkeys(("replicate", "acknowledge", "read", "read_reply"), LNKD_SSD)
    seconds = operations / sessions * 0.6e-3
    config = {
        "experiment": "pbs",
        "seed": seed,
        "runtime": "sim",
        "system": {
            "name": "replicated_store",
            "replicas": 3,
            "nodes": 4,
            "protocol": {
                "name": "quorum",
                "read_quorum": read,
                "write_quorum": write,
                "coordinator": "outside",
                "versions": "clock",
                "repair": False,
                "handoff": False,
                "resend": "100s",
                "give_up": "1000s",
            },
            "node": {"cpu": {"read": "0s", "write": "0s", "message": "0s"}},
            "network": {"delays": law_of, "ordering": "none"},
        },
        "workload": {"name": "ycsb", "mix": "a", "keys": 1, "value_size": "8B"},
        "arrival": {"name": "closed", "sessions": sessions, "think_time": "0s"},
        "client": {"timeout": "1000s"},
        "warmup": "0s",
        "duration": f"{seconds}s",
    }
    history = simulated.run(Parts.of(load_mapping(config))).history
    assert (history.outcome == OK).all()
    return history


def p999_ms(history: History, kind: int) -> float:
    latency_ns: NDArray[numpy.int64] = (history.returned_ns - history.invoked_ns)[
        history.kind == kind
    ]
    return float(numpy.percentile(latency_ns, 99.9)) / 1e6


def consistent_at_once(history: History) -> tuple[float, int]:
    """Share of reads that find the write which had just returned in their one session."""
    assert (history.invoked_ns[1:] == history.returned_ns[:-1]).all()
    pairs = (history.kind[:-1] == WRITE) & (history.kind[1:] == READ)
    fresh = (history.value_id[1:] == history.value_id[:-1])[pairs]
    return float(fresh.mean()), len(fresh)


def test_latency_of_lnkd_ssd() -> None:
    # 30 exceedances of a 99.9th percentile: its standard error is about 5 %.
    history = lnkd_ssd(1, 1, sessions=50, operations=60_000, seed=3)
    for kind, published in zip((READ, WRITE), PUBLISHED[1, 1], strict=True):
        assert p999_ms(history, kind) == pytest.approx(published, rel=0.10)


def test_consistency_of_lnkd_ssd_at_once() -> None:
    share, pairs = consistent_at_once(lnkd_ssd(1, 1, sessions=1, operations=40_000, seed=3))
    assert pairs > 8_000
    # Three standard errors of so many pairs.
    assert share == pytest.approx(0.974, abs=0.005)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("quorums", PUBLISHED)
def test_latency_of_lnkd_ssd_closely(quorums: tuple[int, int]) -> None:
    history = lnkd_ssd(*quorums, sessions=50, operations=600_000, seed=5)
    for kind, published in zip((READ, WRITE), PUBLISHED[quorums], strict=True):
        assert p999_ms(history, kind) == pytest.approx(published, rel=0.04)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_consistency_of_lnkd_ssd_at_once_closely() -> None:
    share, _ = consistent_at_once(lnkd_ssd(1, 1, sessions=1, operations=400_000, seed=5))
    assert share == pytest.approx(0.974, abs=0.002)
