"""Balancers: conformance of every registered one, fairness, and the power of d choices against
its closed form.
"""

from __future__ import annotations

import math
from collections import Counter

import pytest
from balancer_rig import ENDINGS, make, mean_response, picks, send
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from orchestrator.core.load import SENT, Balancer
from orchestrator.core.registry import Family, plugins

BALANCERS = list(plugins(Family.BALANCER))


# --- every registered balancer ----------------------------------------------------------

CANDIDATES = st.lists(st.integers(0, 9), min_size=1, max_size=10, unique=True)


def drive(balancer: Balancer, rounds: list[list[int]], endings: list[int]) -> list[int]:
    """Pick and send one operation a round; up to five stay outstanding, then the oldest ends."""
    outstanding: list[int] = []
    chosen = []
    for now_ns, (candidates, ending) in enumerate(zip(rounds, endings, strict=False)):
        node = balancer.pick(b"key%d" % (now_ns % 7), candidates, now_ns)
        balancer.observe(node, SENT, 0, now_ns)
        outstanding.append(node)
        if len(outstanding) > 5:
            left = outstanding.pop(0)
            balancer.observe(left, ending, 1000, now_ns)
            if balancer.reports:
                balancer.hear(left, outstanding.count(left), 1000, now_ns)
        if balancer.probing:
            for probed in balancer.probes(candidates, now_ns):
                assert probed in candidates
                balancer.hear(probed, outstanding.count(probed), 500 * probed, now_ns)
        chosen.append(node)
    return chosen


@pytest.mark.parametrize("name", BALANCERS)
@given(
    rounds=st.lists(CANDIDATES, max_size=40),
    endings=st.lists(st.sampled_from(ENDINGS), min_size=40, max_size=40),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=100, derandomize=True, deadline=None)
def test_picks_a_candidate_the_same_for_a_seed_and_leaves_the_candidates_alone(
    name: str, rounds: list[list[int]], endings: list[int], seed: int
) -> None:
    before = [list(candidates) for candidates in rounds]
    chosen = drive(make(name, 10, seed), rounds, endings)
    assert all(node in candidates for node, candidates in zip(chosen, rounds, strict=True))
    assert rounds == before
    assert drive(make(name, 10, seed), rounds, endings) == chosen


@pytest.mark.parametrize("name", BALANCERS)
def test_one_candidate_is_the_pick(name: str) -> None:
    balancer = make(name, 8)
    send(balancer, 5, 100)
    assert picks(balancer, (5,), 20) == [5] * 20


@pytest.mark.parametrize("name", BALANCERS)
def test_a_list_and_a_tuple_are_the_same_candidates(name: str) -> None:
    assert picks(make(name, 9), [8, 2, 5], 50) == picks(make(name, 9), (8, 2, 5), 50)


# --- round robin and random -------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_round_robin_goes_round(count: int) -> None:
    candidates = tuple(range(10, 10 + count))
    chosen = picks(make("round_robin", 20), candidates, 5 * count)
    start = candidates.index(chosen[0])
    assert chosen == [candidates[(start + at) % count] for at in range(5 * count)]


def test_round_robin_is_fair_however_candidate_lists_interleave() -> None:
    balancer = make("round_robin", 4)
    # Writes go to node 0; one cursor for all would send twice as many reads to node 1.
    reads = []
    for at in range(400):
        balancer.pick(b"write", (0,), at)
        reads.append(balancer.pick(b"read", (0, 1, 2, 3), at))
        if at % 3 == 0:
            balancer.pick(b"other", (1, 3), at)
    assert all(len(set(reads[at : at + 4])) == 4 for at in range(397))


def test_round_robin_of_several_clients_does_not_start_in_step() -> None:
    starts = Counter(make("round_robin", 4, seed).pick(b"k", (0, 1, 2, 3), 0) for seed in range(99))
    assert len(starts) == 4


def test_random_is_uniform() -> None:
    counts = Counter(picks(make("random", 7), tuple(range(7)), 70_000))
    assert chisquare([counts[node] for node in range(7)]).pvalue > 0.001


# --- power of d -------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 9])
def test_power_of_d_draws_distinct_candidates_and_takes_the_least_loaded(d: int) -> None:
    # Of n nodes the one with r less loaded ones is picked where no better one is drawn:
    # C(n-1-r, d-1) of the C(n, d) equally likely draws.
    nodes = (6, 2, 9, 0, 4)
    balancer = make("power_of_d", 10, d=d)
    for rank, node in enumerate(nodes):
        send(balancer, node, rank)
    counts = Counter(picks(balancer, nodes, 40_000))
    drawn = min(d, 5)
    chances = [math.comb(4 - rank, drawn - 1) / math.comb(5, drawn) for rank in range(5)]
    # Four standard deviations; what cannot be picked never is.
    assert [counts[node] / 40_000 for node in nodes] == pytest.approx(chances, abs=0.01)
    assert set(counts) == {node for node, chance in zip(nodes, chances, strict=True) if chance}


@pytest.mark.parametrize("d", [1, 2, 3, 7])
def test_power_of_d_picks_every_one_of_equals_as_often(d: int) -> None:
    counts = Counter(picks(make("power_of_d", 5, d=d), (0, 1, 2, 3, 4), 50_000))
    assert chisquare([counts[node] for node in range(5)]).pvalue > 0.001


def test_power_of_d_takes_the_first_drawn_of_equals() -> None:
    for seed in range(50):
        one, three = (make("power_of_d", 9, seed, d=d) for d in (1, 3))
        # From the same stream both draw the same node first.
        assert picks(one, tuple(range(9)), 1) == picks(three, tuple(range(9)), 1)


@pytest.mark.parametrize("ending", ENDINGS)
def test_power_of_d_counts_an_operation_until_it_ends(ending: int) -> None:
    balancer = make("power_of_d", 2)
    send(balancer, 0, 2)
    send(balancer, 1, 1)
    assert set(picks(balancer, (0, 1), 20)) == {1}
    balancer.observe(0, ending, 1000, 1)
    assert set(picks(balancer, (0, 1), 50)) == {0, 1}
    balancer.observe(0, ending, 1000, 2)
    assert set(picks(balancer, (0, 1), 20)) == {0}


def closed_form(load: float, d: int) -> float:
    """T_d for ever more servers (Mitzenmacher, IEEE TPDS 12(10), 2001, theorem on T_d)."""
    if d == 1:
        return 1 / (1 - load)
    # From the 50th on, terms are below 1e-30 for every case here.
    return math.fsum(math.pow(load, (d**i - d) / (d - 1)) for i in range(1, 50))


@pytest.mark.parametrize(
    ("load", "d", "published", "arrivals"),
    [
        (0.5, 1, 2.0, 400_000),
        (0.5, 2, 1.2657, 200_000),
        (0.5, 3, 1.1252, 200_000),
        (0.8, 2, 1.9474, 400_000),
        (0.8, 3, 1.5809, 400_000),
        (0.9, 2, 2.6141, 1_000_000),
        pytest.param(0.9, 3, 2.0279, 1_000_000, marks=pytest.mark.long),
    ],
)
def test_power_of_d_response_time(load: float, d: int, published: float, arrivals: int) -> None:
    assert closed_form(load, d) == pytest.approx(published, abs=5e-5)
    # Noise is below .4 %. A hundred servers lie above the limit of ever more servers: by .6 % at
    # load .8, by 1.5 % (d = 2) and 1.8 % (d = 3) at .9.
    measured = mean_response(make("power_of_d", 100, d=d), 100, load, arrivals, seed=1)
    assert measured == pytest.approx(published, rel=0.02)


def test_more_choices_always_respond_sooner() -> None:
    balancers = [make("random", 20), *(make("power_of_d", 20, d=d) for d in (2, 3, 20))]
    means = [mean_response(balancer, 20, 0.8, 60_000, seed=2) for balancer in balancers]
    assert means == sorted(means, reverse=True)
