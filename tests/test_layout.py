"""Which shard has a key and which nodes hold it: balance, and that as little as possible moves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.hashing import hashed, points
from orchestrator.core.layout import (
    ADD_NODE,
    ADD_SHARD,
    REMOVE_NODE,
    REMOVE_SHARD,
    Change,
    Layouts,
    Planner,
    ShardMap,
)
from orchestrator.core.parameters import ParameterError
from orchestrator.core.registry import Family, NoParams, plugin, plugins
from orchestrator.shardings import hash_ranges, ring
from orchestrator.shardings.modulo import Modulo

KEYS = [b"user%012d" % number for number in range(20_000)]
SHARDINGS = sorted(plugins(Family.SHARDING))


def made(name: str, shards: Sequence[int], **params: Any) -> ShardMap:
    found = plugin(Family.SHARDING, name)
    shard_map: ShardMap = found.implementation(found.params(**params), shards)
    return shard_map


def counts(shard_map: ShardMap) -> Counter[int]:
    return Counter(shard_map.shard_of(key) for key in KEYS)


def moved(before: ShardMap, after: ShardMap) -> list[tuple[int, int]]:
    pairs = ((before.shard_of(key), after.shard_of(key)) for key in KEYS)
    return [(old, new) for old, new in pairs if old != new]


# --- maps -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHARDINGS)
def test_keys_fall_on_shards_by_their_shares(name: str) -> None:
    shard_map = made(name, range(8))
    found = counts(shard_map)
    assert sum(shard_map.share(shard) for shard in range(8)) == pytest.approx(1)
    # A ring's own deviation is 1 / sqrt(128) of a share; that of a sample of keys is far less.
    allowed = 4 / math.sqrt(128) if name == "ring" else 5 / math.sqrt(len(KEYS) / 8)
    for shard in range(8):
        assert found[shard] / len(KEYS) == pytest.approx(1 / 8, rel=allowed)


@pytest.mark.parametrize("virtual_nodes", [4, 64, 1024])
def test_more_virtual_nodes_make_a_ring_more_even(virtual_nodes: int) -> None:
    shares = []
    for first in range(0, 64, 8):
        found = counts(made("ring", range(first, first + 8), virtual_nodes=virtual_nodes))
        shares += [found[shard] * 8 / len(KEYS) for shard in range(first, first + 8)]
    deviation = math.sqrt(sum((share - 1) ** 2 for share in shares) / len(shares))
    assert deviation == pytest.approx(1 / math.sqrt(virtual_nodes), rel=0.35)


@pytest.mark.parametrize("name", ["ring", "hash_ranges"])
def test_weights_are_kept(name: str) -> None:
    shard_map = made(name, range(3), weights=(1.0, 2.0, 5.0))
    found = counts(shard_map)
    for shard, weight in enumerate((1, 2, 5)):
        assert shard_map.share(shard) == pytest.approx(weight / 8)
        assert found[shard] / len(KEYS) == pytest.approx(weight / 8, rel=0.25)
    with pytest.raises(ParameterError, match="shard 3 needs a weight"):
        made(name, range(4), weights=(1.0, 2.0, 5.0))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 12), st.integers(1, 200))
def test_a_shard_that_joins_a_ring_takes_keys_and_no_other_key_moves(
    shards: int, virtual_nodes: int
) -> None:
    before = made("ring", range(shards), virtual_nodes=virtual_nodes)
    after = made("ring", range(shards + 1), virtual_nodes=virtual_nodes)
    assert {new for _, new in moved(before, after)} <= {shards}


def test_how_much_moves_when_a_shard_is_added() -> None:
    share = {
        name: len(moved(made(name, range(4)), made(name, range(5)))) / len(KEYS)
        for name in SHARDINGS
    }
    assert share["ring"] == pytest.approx(1 / 5, rel=0.25)
    assert share["hash_ranges"] == pytest.approx(1 / 2, rel=0.05)
    assert share["modulo"] == pytest.approx(4 / 5, rel=0.05)


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=20), st.integers(1, 5), st.integers(1, 30))
def test_a_ring_is_what_its_definition_says(key: bytes, shards: int, virtual_nodes: int) -> None:
    places = [(place, s) for s in range(shards) for place in points(s, virtual_nodes)]
    # The first place from the key's own on, once around the ring.
    _, owner = min(((place - hashed(key)) % 2**64, shard) for place, shard in places)
    assert ring.Ring(ring.Params(virtual_nodes=virtual_nodes), range(shards)).shard_of(key) == owner


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=20), st.lists(st.floats(0.1, 10), min_size=1, max_size=6))
def test_ranges_are_what_their_definition_says(key: bytes, weights: list[float]) -> None:
    made_ranges = hash_ranges.HashRanges(
        hash_ranges.Params(weights=tuple(weights)), range(len(weights))
    )
    place = hashed(key) / 2**64 * sum(weights)
    assert place <= sum(weights[: made_ranges.shard_of(key) + 1]) * (1 + 1e-9)
    assert place >= sum(weights[: made_ranges.shard_of(key)]) * (1 - 1e-9)


# --- placement and epochs ---------------------------------------------------------------


def modulo(shards: Sequence[int]) -> ShardMap:
    return Modulo(NoParams(), shards)


def held(layouts: Layouts, epoch: int) -> tuple[Counter[int], Counter[int]]:
    groups = [layouts.groups[group].nodes for group in layouts.epochs[epoch].group_of.values()]
    return Counter(nodes[0] for nodes in groups), Counter(n for nodes in groups for n in nodes)


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 9), st.data())
def test_groups_are_spread_evenly(shards: int, nodes: int, data: st.DataObject) -> None:
    replicas = data.draw(st.integers(1, nodes))
    layouts = Planner(shards, nodes, replicas, modulo).plan([])
    assert all(len(set(group.nodes)) == replicas for group in layouts.groups)
    first, _ = held(layouts, 0)
    assert max(first.values()) <= -(-shards // nodes)
    assert layouts.whole == (replicas == nodes)


@settings(deadline=None)
@given(st.integers(4, 12), st.integers(2, 6), st.data())
def test_a_node_that_is_added_gets_its_part_and_one_that_is_removed_loses_all(
    shards: int, nodes: int, data: st.DataObject
) -> None:
    replicas = data.draw(st.integers(1, nodes - 1))
    new = nodes - 1
    changes = [Change(ADD_NODE, new), Change(REMOVE_NODE, 0)] if nodes - 1 > replicas else []
    changes = changes or [Change(ADD_NODE, new)]
    layouts = Planner(shards, nodes, replicas, modulo).plan(changes)
    assert new not in held(layouts, 0)[1]
    due = shards * replicas // nodes
    assert held(layouts, 1)[1][new] == due
    # Nobody else changes places, so as many groups change as places are given.
    before, after = layouts.epochs[0].group_of, layouts.epochs[1].group_of
    assert sum(before[shard] != after[shard] for shard in before) == due
    if len(changes) == 2:
        assert 0 not in held(layouts, 2)[1]
    for epoch in layouts.epochs:
        for group in epoch.group_of.values():
            assert len(set(layouts.groups[group].nodes)) == replicas


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 5), st.integers(1, 8), st.data())
def test_every_key_is_in_a_cell_whose_path_is_its_own(
    shards: int, portions: int, data: st.DataObject
) -> None:
    changes: list[Change] = []
    for _ in range(3):
        drawn = Change(
            data.draw(st.sampled_from([ADD_SHARD, REMOVE_SHARD])),
            data.draw(st.integers(0, shards - 1)),
        )
        try:
            Planner(shards, 3, 1, modulo).plan([*changes, drawn])
        except ValueError:
            continue
        changes.append(drawn)
    layouts = Planner(shards, 3, 1, modulo, portions).plan(changes)
    for key in KEYS[:50]:
        cell = layouts.cell_of(key)
        path = [epoch.group_of[epoch.map.shard_of(key)] for epoch in layouts.epochs]
        assert list(layouts.path(cell)) == path
        assert list(layouts.owners(cell)) == list(dict.fromkeys(path[::-1]))
        assert layouts.group_at(0, key) == layouts.groups[path[0]]
    with pytest.raises(ValueError, match="no cell"):
        layouts.path(-1)
    for one, other in pairwise(layouts.epochs):
        # A shard that stays keeps its group.
        for shard in one.group_of.keys() & other.group_of.keys():
            assert one.group_of[shard] == other.group_of[shard]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ([Change(REMOVE_SHARD, 0), Change(REMOVE_SHARD, 1)], "last shard"),
        ([Change(REMOVE_SHARD, 0), Change(REMOVE_SHARD, 0)], "no shard 0 to remove"),
        ([Change(ADD_SHARD, 0), Change(ADD_SHARD, 1)], "no shard in the beginning"),
        ([Change(REMOVE_SHARD, 0)] + 2 * [Change(ADD_SHARD, 0)], "shard 0 is there already"),
        ([Change(ADD_NODE, 0), Change(ADD_NODE, 1), Change(ADD_NODE, 2)], "0 nodes cannot hold"),
        ([Change(REMOVE_NODE, 0)] + 2 * [Change(ADD_NODE, 0)], "node 0 is there already"),
        ([Change(REMOVE_NODE, 0), Change(REMOVE_NODE, 0)], "no node 0 to remove"),
        ([Change(REMOVE_NODE, 0), Change(REMOVE_NODE, 1)], "2 replicas need as many nodes"),
    ],
)
def test_changes_that_cannot_be_are_refused(changes: list[Change], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Planner(2, 3, 2, modulo).plan(changes)
