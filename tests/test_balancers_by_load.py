"""Balancers that go by weights, load or distance, against what is known of them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from balancer_rig import ENDINGS, make, picks, send

from orchestrator.core.load import LOST, OVERTAKEN, REDIRECTED, REFUSED, RETURNED, SENT, Balancer
from orchestrator.core.units import NS_PER_MS, NS_PER_S

# --- weighted round robin ---------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weights", [(5.0, 1.0, 1.0), (3.0, 2.0, 1.0, 4.0), (1.0, 1.0, 1.0)])
def test_weighted_shares_are_exact_in_every_window(weights: tuple[float, ...], seed: int) -> None:
    total = int(sum(weights))
    chosen = picks(
        make("weighted_round_robin", len(weights), seed, weights=weights),
        range(len(weights)),
        20 * total,
    )
    for start in range(19 * total):
        counts = Counter(chosen[start : start + total])
        assert [counts[node] for node in range(len(weights))] == list(weights)


def test_turns_of_a_heavy_node_are_spread() -> None:
    weights = (4.0, 1.0, 1.0, 1.0, 1.0)
    chosen = picks(make("weighted_round_robin", 5, weights=weights), range(5), 800)
    turns = [at for at, node in enumerate(chosen) if node == 0]
    gaps = [later - sooner for sooner, later in pairwise(turns)]
    # Half of all picks; between two turns all four others can be due, never more.
    assert max(gaps) <= 5
    assert sum(gaps) / len(gaps) == pytest.approx(2, rel=0.01)


def test_shares_that_are_no_whole_numbers_come_out_in_the_long_run() -> None:
    chosen = Counter(picks(make("weighted_round_robin", 2, weights=(0.3, 0.7)), (0, 1), 10_000))
    assert abs(chosen[0] - 3000) <= 1


def test_weights_hold_among_any_candidates() -> None:
    balancer = make("weighted_round_robin", 4, weights=(1.0, 2.0, 3.0, 4.0))
    # Lists that interleave do not take each other's turns.
    some, other = [], []
    for at in range(700):
        some.append(balancer.pick(b"", (1, 3), at))
        other.append(balancer.pick(b"", (0, 1, 3), at))
    assert abs(Counter(some)[1] - 700 / 3) <= 1
    assert Counter(other) == {0: 100, 1: 200, 3: 400}


def test_clients_with_weights_do_not_start_in_step() -> None:
    starts = Counter(
        picks(make("weighted_round_robin", 4, seed), range(4), 1)[0] for seed in range(99)
    )
    assert len(starts) == 4


# --- the fewest outstanding -------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_least_loaded_is_picked_and_of_equals_any(ending: int) -> None:
    balancer = make("least_inflight", 4)
    for node, times in enumerate((2, 1, 1, 3)):
        send(balancer, node, times)
    counts = Counter(picks(balancer, (0, 1, 2, 3), 2000))
    assert set(counts) == {1, 2}
    assert counts[1] == pytest.approx(1000, abs=100)
    assert set(picks(balancer, (0, 3), 50)) == {0}
    for _ in range(3):
        balancer.observe(3, ending, 1000, 1)
    assert set(picks(balancer, (0, 1, 2, 3), 50)) == {3}


# --- peak EWMA --------------------------------------------------------------------------


def answered(
    balancer: Balancer, node: int, latency_ns: int, now_ns: int, what: int = RETURNED
) -> None:
    balancer.observe(node, SENT, 0, now_ns)
    balancer.observe(node, what, latency_ns, now_ns)


def test_peak_ewma_prefers_the_faster_node_until_it_has_much_to_do() -> None:
    balancer = make("peak_ewma", 2)
    answered(balancer, 0, 1 * NS_PER_MS, 0)
    answered(balancer, 1, 4 * NS_PER_MS, 0)
    for outstanding in range(6):
        # Latency times what would be outstanding: 1, 2, 3, (4) against 4.
        expected = {0} if outstanding < 3 else {0, 1} if outstanding == 3 else {1}
        assert set(picks(balancer, (0, 1), 40)) == expected
        send(balancer, 0, 1)


def test_peak_ewma_rises_at_once_and_falls_slowly() -> None:
    balancer = make("peak_ewma", 2, decay=NS_PER_S)
    answered(balancer, 1, 2 * NS_PER_MS, 0)
    answered(balancer, 0, 1 * NS_PER_MS, 0)
    answered(balancer, 0, 10 * NS_PER_MS, 1)
    assert balancer.pick(b"", (0, 1), 1) == 1
    # Half a time constant takes 10 ms to .6 * 10 + .4 * 1: still above.
    for node, latency_ns in ((0, NS_PER_MS), (1, 2 * NS_PER_MS)):
        answered(balancer, node, latency_ns, NS_PER_S // 2)
    assert balancer.pick(b"", (0, 1), NS_PER_S // 2) == 1
    for node, latency_ns in ((0, NS_PER_MS), (1, 2 * NS_PER_MS)):
        answered(balancer, node, latency_ns, 5 * NS_PER_S)
    assert balancer.pick(b"", (0, 1), 5 * NS_PER_S) == 0


def test_failing_fast_attracts_nothing_and_a_time_out_is_a_latency() -> None:
    for what, expected in ((REFUSED, 0), (REDIRECTED, 0), (LOST, 1)):
        balancer = make("peak_ewma", 2)
        answered(balancer, 0, 5 * NS_PER_MS, 0)
        answered(balancer, 1, 6 * NS_PER_MS, 0)
        # Neither 1 us at node 1, which says nothing, nor a second at node 0, which does.
        answered(balancer, 1 - expected, 1000 if what != LOST else NS_PER_S, 0, what)
        assert set(picks(balancer, (0, 1), 40)) == {expected}


def test_who_was_overtaken_took_at_least_so_long() -> None:
    for overtaken_ms, expected in ((9, 1), (4, 0)):
        balancer = make("peak_ewma", 2)
        answered(balancer, 0, 5 * NS_PER_MS, 0)
        answered(balancer, 1, 6 * NS_PER_MS, 0)
        # Longer than it was known to take is news, shorter than that is none.
        answered(balancer, 0, overtaken_ms * NS_PER_MS, 0, OVERTAKEN)
        assert set(picks(balancer, (0, 1), 40)) == {expected}


def test_a_node_that_has_never_answered_gets_one_operation() -> None:
    balancer = make("peak_ewma", 2)
    answered(balancer, 0, 5 * NS_PER_MS, 0)
    assert balancer.pick(b"", (0, 1), 0) == 1
    send(balancer, 1, 1)
    assert set(picks(balancer, (0, 1), 40)) == {0}


# --- locality ---------------------------------------------------------------------------

NEAR_TO_FAR = (0, 0, 40 * NS_PER_MS, 40 * NS_PER_MS, 90 * NS_PER_MS)


def test_locality_never_leaves_the_zone_below_the_spill() -> None:
    balancer = make("locality", 5, distances_ns=NEAR_TO_FAR, spill=3)
    chosen = []
    for at in range(14):
        chosen.append(balancer.pick(b"", (0, 1, 2, 3, 4), at))
        send(balancer, chosen[-1], 1)
    # Two near nodes take six, two farther ones six, then the farthest.
    assert [sorted(set(chosen[start:end])) for start, end in ((0, 6), (6, 12), (12, 14))] == [
        [0, 1],
        [2, 3],
        [4],
    ]
    assert Counter(chosen) == {0: 3, 1: 3, 2: 3, 3: 3, 4: 2}
    balancer.observe(1, RETURNED, 0, 20)
    assert balancer.pick(b"", (0, 1, 2, 3, 4), 20) == 1


def test_where_all_are_full_it_is_the_nearest_again() -> None:
    balancer = make("locality", 5, distances_ns=NEAR_TO_FAR, spill=1)
    for node in range(5):
        send(balancer, node, 9)
    assert set(picks(balancer, (0, 1, 2, 3, 4), 20)) == {0, 1}
    assert set(picks(balancer, (4, 3), 20)) == {3}


def test_without_a_spill_it_stays_and_without_distances_all_are_near() -> None:
    stays = make("locality", 5, distances_ns=NEAR_TO_FAR, spill=None)
    send(stays, 0, 1000)
    send(stays, 1, 1000)
    assert set(picks(stays, (0, 1, 2, 3, 4), 20)) == {0, 1}
    alike = make("locality", 5)
    assert set(picks(alike, (0, 1, 2, 3, 4), 100)) == {0, 1, 2, 3, 4}
