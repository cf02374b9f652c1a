"""Cache policies: conformance of every registered one, the rules of size of lru and fifo, and Che,
Tung and Wang's approximation. Each policy's own rules: test_cache_policies; the oracle
libCacheSim: test_cache_oracle.
"""

from __future__ import annotations

import copy
import hashlib
import os
import subprocess
import sys
from typing import Any

import numpy
import pytest
from cache_rig import (
    CACHES,
    FORGET,
    SHAPES,
    checked,
    feed,
    make,
    name_of,
    residents,
    steps_of,
    zipf,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq

from orchestrator.core.randomness import block_stream

QUEUES = ["fifo", "lru"]


# --- every registered policy ------------------------------------------------------------


@pytest.mark.parametrize("unit", ["", "B"])
@pytest.mark.parametrize(("name", "params"), SHAPES)
@given(steps=steps_of(15), amount=st.integers(1, 30))
@checked
def test_room_is_kept_and_what_leaves_is_listed(
    name: str, params: dict[str, Any], unit: str, steps: list[tuple[int, int]], amount: int
) -> None:
    cache = make(name, f"{amount}{unit}" if unit else amount, **params)
    cache.departed = []
    held: set[int] = set()
    evictions = 0
    for at, (key, size) in enumerate(steps):
        feed(cache, [(key, size)])
        now = residents(cache, steps[: at + 1])
        assert (sum(now.values()) if unit else len(now)) <= amount
        left = sorted(held - now.keys() - ({key} if size == FORGET else set()))
        assert sorted(cache.departed) == sorted(name_of(each) for each in left)
        evictions += len(left)
        assert cache.evictions == evictions
        cache.departed.clear()
        held = set(now)


@pytest.mark.parametrize("size", [1, 4, "20B"])
@pytest.mark.parametrize("name", CACHES)
@given(steps=steps_of(15))
@checked
def test_to_look_is_to_know_the_next_access_and_changes_nothing(
    name: str, size: object, steps: list[tuple[int, int]]
) -> None:
    cache = make(name, size)
    hits = []
    for step in steps:
        looked = [name_of(key) for key in range(12) if name_of(key) in cache]
        if step[1] != FORGET and step[1] <= 4:
            assert (name_of(step[0]) in looked) == feed(copy.deepcopy(cache), [step])[0]
        hits += feed(cache, [step])
    assert hits == feed(make(name, size), steps)


def digest_of_hits() -> str:
    """Of every policy on one stream, by entries and by bytes."""
    keys = block_stream(1, "stream").choice(2000, 5000, p=zipf(2000, 0.9)).tolist()
    steps = [(key, 1 + key % 7) for key in keys]
    hits = [feed(make(name, size), steps) for name in CACHES for size in (100, "400B")]
    return hashlib.sha256(repr(hits).encode()).hexdigest()


def test_hits_are_the_same_in_every_process() -> None:
    """Under every PYTHONHASHSEED, which decides Python's own hash of bytes."""
    script = "import test_caches; print(test_caches.digest_of_hits())"
    tests = os.path.dirname(__file__)
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        found = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tests,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == digest_of_hits()


@pytest.mark.parametrize("size", [4, "20B"])
@pytest.mark.parametrize("name", CACHES)
@given(steps=steps_of(15))
@checked
def test_only_what_was_accessed_and_not_forgotten_since_is_a_hit(
    name: str, size: object, steps: list[tuple[int, int]]
) -> None:
    known: set[int] = set()
    for (key, weight), hit in zip(steps, feed(make(name, size), steps), strict=True):
        assert not hit or key in known
        if weight == FORGET:
            known.discard(key)
        else:
            known.add(key)


@pytest.mark.parametrize("size", [4, "20B"])
@pytest.mark.parametrize("name", CACHES)
@given(steps=steps_of(15))
@checked
def test_same_accesses_same_hits(name: str, size: object, steps: list[tuple[int, int]]) -> None:
    one, other = make(name, size), make(name, size)
    assert feed(one, steps) == feed(other, steps)
    assert one.evictions == other.evictions


@pytest.mark.parametrize("size", [1, 3, "10B"])
@pytest.mark.parametrize("name", CACHES)
def test_a_missing_entry_is_put_in(name: str, size: object) -> None:
    cache = make(name, size)
    for key in range(20):
        assert feed(cache, [(key, 7), (key, 7)]) == [False, True]


@pytest.mark.parametrize("size", [5, "50B"])
@pytest.mark.parametrize("name", CACHES)
def test_nothing_leaves_while_all_fit(name: str, size: object) -> None:
    cache = make(name, size)
    steps = [(key, 10) for key in (1, 2, 3, 4, 5)]
    assert feed(cache, steps) == [False] * 5
    assert feed(cache, steps + steps[::-1]) == [True] * 10
    assert cache.evictions == 0


@pytest.mark.parametrize("size", [5, "50B"])
@pytest.mark.parametrize("name", CACHES)
def test_forget_drops_one_entry_and_knows_none_that_is_not_there(name: str, size: object) -> None:
    cache = make(name, size)
    feed(cache, [(1, 10), (2, 10), (1, FORGET), (1, FORGET), (9, FORGET)])
    assert feed(cache, [(2, 10), (1, 10)]) == [True, False]
    assert cache.evictions == 0


@pytest.mark.parametrize("name", CACHES)
def test_an_entry_larger_than_the_cache_is_not_put_in_and_moves_nothing_out(name: str) -> None:
    cache = make(name, "10B")
    assert feed(cache, [(1, 5), (2, 11), (2, 11), (1, 5)]) == [False, False, False, True]
    assert cache.evictions == 0
    assert feed(cache, [(3, 10), (3, 10)]) == [False, True]


# --- lru and fifo, rule by rule ---------------------------------------------------------


def test_lru_evicts_what_went_longest_without_an_access() -> None:
    cache = make("lru", 2)
    assert feed(cache, [(1, 1), (2, 1), (1, 1), (3, 1)]) == [False, False, True, False]
    assert residents(cache, [(1, 1), (2, 1), (3, 1)]) == {1: 1, 3: 1}
    assert cache.evictions == 1


def test_fifo_evicts_what_was_put_in_first_whatever_was_hit_since() -> None:
    cache = make("fifo", 2)
    assert feed(cache, [(1, 1), (2, 1), (1, 1), (3, 1)]) == [False, False, True, False]
    assert residents(cache, [(1, 1), (2, 1), (3, 1)]) == {2: 1, 3: 1}
    assert cache.evictions == 1


@pytest.mark.parametrize("name", QUEUES)
def test_entries_weigh_one_each_when_room_is_counted_in_entries(name: str) -> None:
    cache = make(name, 2)
    assert feed(cache, [(1, 10**9), (2, 0), (1, 5), (2, 7)]) == [False, False, True, True]


@pytest.mark.parametrize("name", QUEUES)
def test_one_large_entry_moves_out_as_many_as_it_needs(name: str) -> None:
    cache = make(name, "10B")
    steps = [(1, 3), (2, 3), (3, 3), (4, 7)]
    feed(cache, steps)
    assert residents(cache, steps) == {3: 3, 4: 7}
    assert cache.evictions == 2


@pytest.mark.parametrize(
    ("name", "left"),
    # The grown entry is the newest of an LRU queue and still the oldest of a FIFO queue.
    [("lru", {1: 8}), ("fifo", {2: 5})],
)
def test_an_entry_that_grew_is_a_hit_and_the_head_makes_room(
    name: str, left: dict[int, int]
) -> None:
    cache = make(name, "10B")
    steps = [(1, 5), (2, 5), (1, 8)]
    assert feed(cache, steps) == [False, False, True]
    assert residents(cache, steps) == left
    assert cache.evictions == 1


@pytest.mark.parametrize("name", QUEUES)
def test_an_entry_that_shrank_leaves_room(name: str) -> None:
    cache = make(name, "10B")
    steps = [(1, 8), (1, 2), (2, 8)]
    assert feed(cache, steps) == [False, True, False]
    assert residents(cache, steps) == {1: 2, 2: 8}
    assert cache.evictions == 0


@pytest.mark.parametrize("name", QUEUES)
def test_an_entry_that_outgrew_the_cache_is_a_miss_and_dropped(name: str) -> None:
    cache = make(name, "10B")
    assert feed(cache, [(1, 4), (2, 4), (1, 11)]) == [False, False, False]
    assert cache.evictions == 1
    assert feed(cache, [(1, 4), (2, 4)]) == [False, True]


@pytest.mark.parametrize("name", QUEUES)
def test_forgotten_room_is_free_and_no_eviction(name: str) -> None:
    cache = make(name, "10B")
    steps = [(1, 5), (2, 5), (1, FORGET), (3, 5)]
    feed(cache, steps)
    assert residents(cache, steps) == {2: 5, 3: 5}
    assert cache.evictions == 0


def naive(name: str, amount: int, steps: list[tuple[int, int]]) -> tuple[list[bool], int]:
    """The rules again as a plain list, oldest first: (hits, evictions)."""
    queue: list[tuple[int, int]] = []
    hits: list[bool] = []
    evictions = 0
    for key, size in steps:
        keys = [held for held, _ in queue]
        present = key in keys
        at = keys.index(key) if present else len(queue)
        if size == FORGET or size > amount:
            queue = [entry for entry in queue if entry[0] != key]
            evictions += present and size != FORGET
            hits.append(False)
            continue
        if present and name == "lru":
            del queue[at]
            at = len(queue)
        queue[at : at + 1] = [(key, size)]
        while sum(weight for _, weight in queue) > amount:
            del queue[0]
            evictions += 1
        hits.append(present)
    return hits, evictions


@pytest.mark.parametrize("name", QUEUES)
@given(steps=steps_of(15), amount=st.integers(1, 30))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_changing_sizes_agree_with_a_naive_model(
    name: str, steps: list[tuple[int, int]], amount: int
) -> None:
    cache = make(name, f"{amount}B")
    assert (feed(cache, steps), cache.evictions) == naive(name, amount, steps)


# --- independent references, Zipf -------------------------------------------------------


def resident_share(
    name: str, shares: NDArray[numpy.float64], time: float
) -> NDArray[numpy.float64]:
    """Probability that a key is cached, given the characteristic time in accesses."""
    demand = shares * time
    share: NDArray[numpy.float64] = (
        -numpy.expm1(-demand) if name == "lru" else demand / (1 + demand)
    )
    return share


def characteristic_time_hit_ratio(name: str, keys: int, alpha: float, entries: int) -> float:
    """Che, Tung and Wang (IEEE JSAC 20(7), 2002); FIFO: Martina et al. (INFOCOM 2014)."""
    shares = zipf(keys, alpha)
    time = brentq(lambda time: float(resident_share(name, shares, time).sum()) - entries, 1.0, 1e9)
    return float((shares * resident_share(name, shares, time)).sum())


@pytest.mark.parametrize(
    ("name", "keys", "alpha", "entries", "published"),
    [
        ("lru", 10_000, 0.8, 1000, 0.436660),
        ("lru", 10_000, 0.99, 1000, 0.664140),
        ("fifo", 10_000, 0.99, 1000, 0.619030),
        # Neighbours, whose values come from the approximation itself.
        ("lru", 2000, 0.6, 100, None),
        ("fifo", 2000, 1.2, 500, None),
    ],
)
def test_hit_ratio_of_independent_references(
    name: str, keys: int, alpha: float, entries: int, published: float | None
) -> None:
    expected = characteristic_time_hit_ratio(name, keys, alpha, entries)
    if published is not None:
        assert expected == pytest.approx(published, abs=1e-6)
    names = [name_of(key) for key in range(keys)]
    draws = block_stream(1, "references").choice(keys, 700_000, p=zipf(keys, alpha))
    stream = [names[key] for key in draws.tolist()]
    cache = make(name, entries)
    for key in stream[:100_000]:
        cache.access(key, 1, 0)
    hits = sum(cache.access(key, 1, 0) for key in stream[100_000:])
    assert hits / 600_000 == pytest.approx(expected, abs=0.005)
