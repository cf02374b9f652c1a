"""Balancers that go by the key: who serves what, what moves when a node leaves, and bounds."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from balancer_rig import make, picks, send
from scipy.stats import chisquare

from orchestrator.core.hashing import hashed, points
from orchestrator.core.load import RETURNED, Balancer
from orchestrator.core.randomness import scalar_stream

KEYS = [b"user%d" % number for number in range(20_000)]
BY_KEY: list[tuple[str, dict[str, Any]]] = [
    ("consistent_hash", {}),
    ("rendezvous", {}),
    ("rendezvous", {"weights": (1.0, 2.0, 1.0, 0.5, 1.0, 3.0, 1.0, 1.0, 0.1, 1.0)}),
]
EVERY = tuple(range(10))


def owners(balancer: Balancer, candidates: Sequence[int]) -> list[int]:
    return [balancer.pick(key, candidates, 0) for key in KEYS]


@pytest.mark.parametrize(("name", "params"), BY_KEY)
@pytest.mark.parametrize("leaving", [0, 4, 9])
def test_only_the_keys_of_a_node_that_leaves_move(
    name: str, params: dict[str, Any], leaving: int
) -> None:
    balancer = make(name, 10, **params)
    before = owners(balancer, EVERY)
    after = owners(balancer, [node for node in EVERY if node != leaving])
    moved = [old for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {leaving}
    assert leaving not in after
    assert len(moved) == before.count(leaving) > 0
    # To many others, not to one neighbour.
    heirs = {new for old, new in zip(before, after, strict=True) if old == leaving}
    assert len(heirs) > 5
    assert owners(balancer, EVERY) == before


@pytest.mark.parametrize(("name", "params"), BY_KEY)
def test_a_key_meets_its_node_whoever_asks_and_in_whatever_order(
    name: str, params: dict[str, Any]
) -> None:
    one, other = make(name, 10, seed=1, **params), make(name, 10, seed=2, **params)
    assert owners(one, EVERY) == owners(other, EVERY[::-1])


def test_keys_spread_within_the_bounds_of_the_virtual_nodes() -> None:
    # A share deviates by 1 / sqrt(v) of itself: five standard deviations for the worst of ten.
    for virtual_nodes in (64, 1024):
        counts = Counter(owners(make("consistent_hash", 10, virtual_nodes=virtual_nodes), EVERY))
        mean, deviation = len(KEYS) / 10, 1 / math.sqrt(virtual_nodes)
        assert len(counts) == 10
        assert max(abs(count / mean - 1) for count in counts.values()) < 5 * deviation


def test_rendezvous_spreads_as_chance_does_and_by_weight() -> None:
    counts = Counter(owners(make("rendezvous", 10), EVERY))
    assert chisquare([counts[node] for node in EVERY]).pvalue > 0.001
    weights = BY_KEY[2][1]["weights"]
    weighted = Counter(owners(make("rendezvous", 10, weights=weights), EVERY))
    expected = [len(KEYS) * weight / sum(weights) for weight in weights]
    assert chisquare([weighted[node] for node in EVERY], expected).pvalue > 0.001


def test_a_changed_weight_moves_keys_to_its_node_alone() -> None:
    before = owners(make("rendezvous", 4, weights=(1.0, 1.0, 1.0, 1.0)), range(4))
    after = owners(make("rendezvous", 4, weights=(1.0, 1.0, 2.0, 1.0)), range(4))
    assert {new for old, new in zip(before, after, strict=True) if old != new} == {2}


def test_what_is_remembered_is_bounded_and_forgetting_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = owners(make("rendezvous", 10), EVERY)
    monkeypatch.setattr("orchestrator.balancers.rendezvous.REMEMBERED_MAX", 100)
    balancer: Any = make("rendezvous", 10)
    assert owners(balancer, EVERY) == whole
    assert sum(len(known) for known in balancer._winners.values()) <= 100


@pytest.mark.parametrize("bounded", [1.0, 1.25, 2.0])
@pytest.mark.parametrize("candidates", [EVERY, (1, 4, 6, 7)])
def test_bounded_loads_stay_below_their_bound(bounded: float, candidates: tuple[int, ...]) -> None:
    balancer = make("consistent_hash", 10, bounded=bounded)
    chance = scalar_stream(1, "bounds")
    loads = Counter[int]()
    under_way: list[int] = []
    for at in range(20_000):
        # Half of all operations are on one key.
        key = b"hot" if chance.random() < 0.5 else KEYS[at]
        node = balancer.pick(key, candidates, at)
        send(balancer, node, 1)
        under_way.append(node)
        loads[node] += 1
        assert loads[node] <= bounded * len(under_way) / len(candidates) + 1
        while len(under_way) > chance.randrange(300):
            done = under_way.pop(chance.randrange(len(under_way)))
            loads[done] -= 1
            balancer.observe(done, RETURNED, 0, at)


def test_with_room_a_bound_changes_nothing_and_full_nodes_pass_keys_on() -> None:
    plain, bounded = make("consistent_hash", 10), make("consistent_hash", 10, bounded=2.0)
    assert owners(bounded, EVERY) == owners(plain, EVERY)
    home = plain.pick(b"hot", EVERY, 0)
    send(bounded, home, 1)
    # One outstanding, one to come: ceil(2 * 2 / 10) = 1 is as much as anyone may have.
    following = bounded.pick(b"hot", EVERY, 0)
    assert following != home
    assert following == plain.pick(b"hot", [node for node in EVERY if node != home], 0)


def test_hashes_are_the_same_in_every_process() -> None:
    code = (
        "from orchestrator.core.hashing import hashed, points;"
        "print(hashed(b'user1'), points(3, 20))"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
        )
        assert done.stdout.strip() == f"{hashed(b'user1')} {points(3, 20)}"


def test_more_places_keep_those_that_were_there() -> None:
    assert points(7, 40)[:9] == points(7, 9)
    assert len({*points(7, 40), *points(8, 40)}) == 80


def test_one_place_a_node_is_a_ring_too() -> None:
    balancer = make("consistent_hash", 3, virtual_nodes=1)
    ring = sorted((points(node, 1)[0], node) for node in range(3))
    for key in KEYS[:200]:
        behind = [node for place, node in ring if place > hashed(key)]
        assert balancer.pick(key, (0, 1, 2), 0) == (behind or [ring[0][1]])[0]
    assert len(set(picks(balancer, (0, 1, 2), 500))) == 3
