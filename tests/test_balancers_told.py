"""Balancers that want the servers' own word: joining the shortest queue, and Prequal."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from balancer_rig import make, mean_response, picks, send

from orchestrator.balancers.prequal import Prequal, PrequalParams, reuse_budget
from orchestrator.core.load import REDIRECTED, SENT
from orchestrator.core.units import NS_PER_MS, NS_PER_S


def test_joining_the_shortest_queue_responds_sooner_than_three_choices() -> None:
    balancers = [
        *(make("power_of_d", 100, d=d) for d in (1, 2, 3)),
        make("join_shortest_queue", 100),
    ]
    means = [mean_response(balancer, 100, 0.9, 60_000, seed=3) for balancer in balancers]
    assert means == sorted(means, reverse=True)
    # The load is .9: hardly anybody waits.
    assert 1 < means[-1] < 1.2


def test_one_dispatcher_knows_the_queues_by_its_own_operations() -> None:
    own, told = (make(name, 50) for name in ("least_inflight", "join_shortest_queue"))
    assert mean_response(own, 50, 0.9, 20_000, seed=4) == mean_response(
        told, 50, 0.9, 20_000, seed=4
    )


def test_the_servers_word_counts_the_operations_of_others() -> None:
    balancer = make("join_shortest_queue", 3)
    send(balancer, 2, 2)
    balancer.hear(0, 5, 0, 1)
    balancer.hear(1, 3, 0, 1)
    assert set(picks(balancer, (0, 1, 2), 20)) == {2}
    # What was sent since is added: then node 1 has 3, and node 2 has 4.
    send(balancer, 2, 2)
    assert set(picks(balancer, (0, 1, 2), 20)) == {1}
    # What is under way to it cannot be in its word.
    balancer.hear(2, 0, 0, 2)
    assert set(picks(balancer, (0, 1, 2), 20)) == {1}
    balancer.hear(0, 0, 0, 3)
    assert set(picks(balancer, (0, 1, 2), 20)) == {0}


def test_a_node_that_was_not_heard_of_for_long_is_asked() -> None:
    balancer = make("join_shortest_queue", 3, probe_after=10 * NS_PER_MS)
    nodes = (0, 1, 2)
    assert balancer.probing
    for node in nodes:
        balancer.hear(node, node, 0, 5 * NS_PER_MS)
    assert [list(balancer.probes(nodes, 14 * NS_PER_MS)) for _ in nodes] == [[], [], []]
    asked = [list(balancer.probes(nodes, 15 * NS_PER_MS)) for _ in range(6)]
    # Each once, as long as nothing comes back.
    assert sorted(node for one in asked for node in one) == [0, 1, 2]
    balancer.hear(1, 0, 0, 20 * NS_PER_MS)
    later = [list(balancer.probes(nodes, 26 * NS_PER_MS)) for _ in range(6)]
    assert sorted(node for one in later for node in one) == [0, 2]
    assert not make("join_shortest_queue", 3, probe_after=None).probing


# --- Prequal ----------------------------------------------------------------------------

EVERY = tuple(range(100))


def prequal(nodes: int = 100, seed: int = 1, **params: Any) -> Prequal:
    """One that removes nothing and uses its probes for long, unless told to."""
    lasting = {"removal_rate": 0.0, "probe_rate": 0.01}
    balancer = make("prequal", nodes, seed, **(lasting | params))
    assert isinstance(balancer, Prequal)
    return balancer


def fill(balancer: Prequal, words: dict[int, tuple[int, int]], now_ns: int = 0) -> None:
    """Probes come back: node -> (in flight, latency in ms)."""
    for node, (in_flight, latency_ms) in words.items():
        balancer.hear(node, in_flight, latency_ms * NS_PER_MS, now_ns)


def test_the_coldest_rule_is_latency_among_those_that_are_not_hot() -> None:
    # Nine of ten have 1 in flight, so 9 is hot at the quantile .84 = rank 8 of 10.
    words = {node: (1, 10 + node) for node in range(8)} | {8: (9, 1), 9: (9, 2)}
    balancer = prequal()
    fill(balancer, words)
    assert balancer.pick(b"", EVERY, 0) == 0
    by_latency = prequal(hot_quantile=1.0)
    fill(by_latency, words)
    assert by_latency.pick(b"", EVERY, 0) == 8


def test_where_all_are_hot_it_is_the_fewest_in_flight() -> None:
    balancer = prequal(hot_quantile=0.0)
    fill(balancer, {4: (5, 1), 6: (3, 90), 8: (4, 2)})
    assert balancer.pick(b"", EVERY, 0) == 6


def test_only_candidates_are_picked_and_fewer_than_two_probes_are_no_choice() -> None:
    balancer = prequal()
    fill(balancer, {0: (0, 1), 5: (1, 5), 6: (1, 9)})
    assert balancer.pick(b"", (5, 6, 7), 0) == 5
    drawn = Counter(prequal(seed=seed).pick(b"", (5, 6, 7), 0) for seed in range(300))
    assert set(drawn) == {5, 6, 7} and min(drawn.values()) > 60
    lonely = [prequal(seed=seed) for seed in range(50)]
    for each in lonely:
        fill(each, {0: (0, 1), 5: (0, 1)})
    # One probe of a candidate, another of somebody else.
    assert len({each.pick(b"", (5, 6, 7), 0) for each in lonely}) == 3


def test_an_operation_sent_counts_in_the_probe_and_its_end_does_not() -> None:
    balancer = prequal(hot_quantile=0.0)
    fill(balancer, {1: (2, 1), 2: (3, 1)})
    assert balancer.pick(b"", EVERY, 0) == 1
    for what in (SENT, SENT, REDIRECTED):
        balancer.observe(1, what, 0, 0)
    assert balancer.pool[1].in_flight == 4
    assert balancer.pick(b"", EVERY, 0) == 2


def test_the_pool_is_bounded_has_one_probe_a_node_and_forgets_what_is_old() -> None:
    balancer = prequal(pool_size=4, max_age=NS_PER_S)
    for at, node in enumerate((0, 1, 2, 3)):
        fill(balancer, {node: (at, 1)}, at)
    fill(balancer, {1: (7, 7)}, 10)
    assert list(balancer.pool) == [0, 2, 3, 1]
    assert balancer.pool[1].in_flight == 7
    fill(balancer, {9: (0, 1)}, 11)
    assert list(balancer.pool) == [2, 3, 1, 9]
    balancer.pick(b"", EVERY, NS_PER_S + 3)
    assert 2 not in balancer.pool and 3 in balancer.pool
    balancer.pick(b"", EVERY, 2 * NS_PER_S)
    assert not balancer.pool


def test_probes_are_removed_in_turns_the_oldest_and_the_worst() -> None:
    balancer = prequal(removal_rate=1.0, probe_rate=100.0, hot_quantile=0.5)
    fill(balancer, {0: (1, 1), 1: (1, 5), 2: (1, 99), 3: (6, 2), 4: (8, 3), 5: (7, 3)})
    gone = []
    for _ in range(4):
        before = list(balancer.pool)
        balancer._remove()
        gone += [node for node in before if node not in balancer.pool]
    # Oldest, then most in flight, oldest, most in flight again.
    assert gone == [0, 4, 1, 5]
    cold = prequal(hot_quantile=1.0)
    fill(cold, {0: (9, 1), 1: (1, 5), 2: (1, 99), 3: (1, 7)})
    cold._remove()
    cold._remove()
    assert list(cold.pool) == [1, 3]


def test_a_fraction_of_a_removal_is_owed() -> None:
    balancer = prequal(removal_rate=0.25)
    fill(balancer, dict.fromkeys(range(16), (1, 10)))
    left = []
    for _ in range(8):
        balancer.pick(b"", EVERY, 0)
        left.append(len(balancer.pool))
    assert left == [16, 16, 16, 15, 15, 15, 15, 14]


@pytest.mark.parametrize(
    ("params", "nodes", "budget"),
    [
        # (1 + 1) / ((1 - 16/100) 3 - 1)
        ({}, 100, 2 / 1.52),
        ({"probe_rate": 4.0, "removal_rate": 0.0}, 32, 1.0),
        ({"probe_rate": 2.0}, 100, 2 / 0.68),
        ({"probe_rate": 1.0}, 100, math.inf),
        ({}, 10, math.inf),
    ],
)
def test_reuse_budget(params: dict[str, Any], nodes: int, budget: float) -> None:
    assert reuse_budget(PrequalParams(**params), nodes) == pytest.approx(budget)


def test_a_probe_is_used_as_often_as_its_budget_says() -> None:
    balancer = prequal(probe_rate=2.0, removal_rate=1.5, hot_quantile=1.0, pool_size=16)
    # (1 + 1) / (.84 * 2 - 1.5) = 11.1 uses, 11 or 12 by chance.
    uses = []
    for _ in range(200):
        fill(balancer, {0: (0, 1)})
        uses.append(balancer.pool[0].uses)
    assert set(uses) == {11, 12}
    assert sum(uses) / 200 == pytest.approx(2 / 0.18, abs=0.15)
    lasting = prequal(probe_rate=1.0, hot_quantile=1.0)
    fill(lasting, {0: (0, 1), 1: (0, 5), 2: (0, 9)})
    # 2 / .84 = 2.4 uses, the faster ones first.
    budgets = [int(lasting.pool[node].uses) for node in range(3)]
    used = picks(lasting, EVERY, budgets[0] + budgets[1])
    assert used == [0] * budgets[0] + [1] * budgets[1]
    assert list(lasting.pool) == [2]


def test_probes_go_to_different_candidates_at_their_rate() -> None:
    balancer = prequal(probe_rate=2.5)
    asked = [list(balancer.probes(EVERY, at)) for at in range(400)]
    assert sum(len(each) for each in asked) == 1000
    assert all(len(set(each)) == len(each) in (2, 3) for each in asked)
    assert len({node for each in asked for node in each}) == 100
    assert sorted(prequal(probe_rate=3.0).probes((4, 2), 0)) == [2, 4]
