"""Admissions: conformance of every registered one, the rule of each, and caches built with them."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from cache_rig import CACHES, FORGET, checked, feed, make, name_of, residents, steps_of, zipf
from hypothesis import given
from hypothesis import strategies as st
from small_runs import small

from orchestrator.core.caching import build_cache
from orchestrator.core.load import Admission, CachePolicy
from orchestrator.core.parameters import parse_capacity
from orchestrator.core.randomness import block_stream, scalar_stream
from orchestrator.core.registry import Family, Slot, plugin, plugins
from orchestrator.errors import ConfigError
from orchestrator.run import Runner

ADMISSIONS = list(plugins(Family.ADMISSION))


def slot_of(name: str, **params: Any) -> Slot:
    """An admission as a config holds it."""
    return Slot(Family.ADMISSION, name, plugin(Family.ADMISSION, name).params(**params))


def admission(name: str, seed: int = 1, **params: Any) -> Admission:
    slot = slot_of(name, **params)
    made: Admission = slot.implementation(slot.params, scalar_stream(seed, "admission"))
    return made


def guarded(policy: str, size: object, slot: Slot | None, seed: int = 1) -> CachePolicy:
    """A cache of a policy that an admission guards."""
    params = plugin(Family.CACHE, policy).params(size=parse_capacity(size), admission=slot)
    return build_cache(Slot(Family.CACHE, policy, params), scalar_stream(seed, "admission"))


# --- every registered admission ---------------------------------------------------------


@pytest.mark.parametrize("policy", CACHES)
@pytest.mark.parametrize("name", ADMISSIONS)
@given(steps=steps_of(15), amount=st.integers(1, 30))
@checked
def test_what_is_refused_is_a_miss_and_changes_nothing(
    name: str, policy: str, steps: list[tuple[int, int]], amount: int
) -> None:
    """The same hits as of the policy alone that is told of the hits and what was admitted only."""
    cache, alone = guarded(policy, f"{amount}B", slot_of(name)), make(policy, f"{amount}B")
    cache.departed, alone.departed = [], []
    guard = admission(name)
    for key, size in steps:
        expected = False
        if size == FORGET:
            alone.forget(name_of(key))
        elif name_of(key) in alone:
            guard.hit(name_of(key))
            expected = alone.access(name_of(key), size, 0)
        elif guard.admits(name_of(key), size):
            alone.access(name_of(key), size, 0)
        assert feed(cache, [(key, size)]) == [expected]
    assert residents(cache, steps) == residents(alone, steps)
    assert (cache.evictions, cache.departed) == (alone.evictions, alone.departed)


def digest_of_admitted() -> str:
    """Of every admission on one stream."""
    keys = block_stream(1, "stream").choice(500, 3000, p=zipf(500, 0.9)).tolist()
    steps = [(key, 1 + key % 7) for key in keys]
    hits = [feed(guarded("lru", 50, slot_of(name)), steps) for name in ADMISSIONS]
    return hashlib.sha256(repr(hits).encode()).hexdigest()


def test_the_same_is_admitted_in_every_process() -> None:
    script = "import test_admissions; print(test_admissions.digest_of_admitted())"
    for seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", script],
            cwd=os.path.dirname(__file__),
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == digest_of_admitted()


# --- one by one -------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_probability_admits_its_share(p: float) -> None:
    guard = admission("probability", p=p)
    share = sum(guard.admits(name_of(key), 1) for key in range(40_000)) / 40_000
    # Four standard deviations.
    assert share == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 40_000))


def test_another_seed_admits_others() -> None:
    def admitted(seed: int) -> list[bool]:
        guard = admission("probability", seed)
        return [guard.admits(b"key", 1) for _ in range(100)]

    assert admitted(1) == admitted(1) != admitted(2)


@pytest.mark.parametrize("size", [0, 100, 1000, 3000, 10**9])
def test_size_admits_by_the_exponential_of_size(size: int) -> None:
    guard = admission("size", c=1000)
    share = sum(guard.admits(b"key", size) for _ in range(40_000)) / 40_000
    p = math.exp(-size / 1000)
    assert share == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 40_000))


@given(keys=st.lists(st.integers(0, 8), max_size=100), n=st.integers(1, 12))
@checked
def test_second_hit_admits_what_is_among_the_last_misses(keys: list[int], n: int) -> None:
    guard = admission("second_hit", n=n)
    for at, key in enumerate(keys):
        assert guard.admits(name_of(key), 1) == (key in keys[max(0, at - n) : at])


def test_second_hit_remembers_no_more_than_it_says() -> None:
    guard: Any = admission("second_hit", n=10)
    for key in range(1000):
        guard.admits(name_of(key), 1)
        guard.admits(name_of(key // 2), 1)
    assert len(guard._last) <= 10


@pytest.mark.parametrize("count", [1, 2, 5])
def test_frequency_admits_from_its_count_on_whatever_the_accesses_were(count: int) -> None:
    guard = admission("frequency", count=count)
    for key in range(100):
        missed = [guard.admits(name_of(key), 1) for _ in range(count)]
        assert missed == [False] * (count - 1) + [True]
    for key in range(100, 200):
        for _ in range(count - 1):
            guard.hit(name_of(key))
        assert guard.admits(name_of(key), 1)


# --- caches built -----------------------------------------------------------------------


def test_without_an_admission_the_policy_itself_is_built() -> None:
    for name in CACHES:
        assert type(guarded(name, 10, None)) is plugin(Family.CACHE, name).implementation


def test_what_expired_asks_again() -> None:
    params = plugin(Family.CACHE, "ttl").params(
        size=parse_capacity(10), ttl=100, admission=slot_of("second_hit", n=1)
    )
    cache = build_cache(Slot(Family.CACHE, "ttl", params), scalar_stream(1, "admission"))
    steps = [(b"a", 0), (b"a", 10), (b"a", 20), (b"b", 30), (b"a", 110), (b"a", 111), (b"a", 112)]
    # Put in at 10 and expired at 110, when the last miss was of b.
    hits = [cache.access(key, 1, now_ns) for key, now_ns in steps]
    assert hits == [False, False, True, False, False, False, True]
    cache.advance(211)
    assert b"a" not in cache
    cache.forget(b"a")
    assert cache.evictions == 0


def test_a_run_puts_in_what_is_admitted(tmp_path: Path) -> None:
    base = ("system.protocol={name: unreplicated}", "system.replicas=1")
    with Runner(tmp_path / "results") as runner:
        done = {
            admission: runner.run(
                small(*base, f"system.cache={{name: sieve, size: 50, admission: {admission}}}")
            ).summary
            for admission in ("null", "{name: probability, p: 1}", "{name: probability, p: 0}")
        }
    all_admitted, one, none = done.values()
    assert one["digest"] == all_admitted["digest"]
    assert one["cache"] == all_admitted["cache"] != none["cache"]
    assert none["cache"] == {"hit_ratio": 0, "client_hit_ratio": None, "evictions": 0}


def test_in_a_full_cache_each_miss_evicts_one(tmp_path: Path) -> None:
    base = ("system.cache={name: lru, size: 50}", "workload.mix=c", "record.operations=none")
    crash = "faults=[{name: crash, target: 1, at: 150ms, restart_after: 50ms}]"
    durable = "system.node.storage.durability=fsync"
    with Runner(tmp_path / "results") as runner:
        result = runner.run(small(*base))
        restarted = runner.run(small(*base, crash, durable)).record
        nodes = runner.store.table("nodes", result.run_id).to_pydict()
    # What was evicted while it was warmed does not count.
    for node in (*result.record.nodes, restarted.nodes[0]):
        assert numpy.array_equal(node.cache_evictions, node.cache_misses)
    assert nodes["cache_evictions"] == nodes["cache_misses"]
    evictions = result.summary["cache"]["evictions"]
    window = sum(int(node.cache_evictions[1:].sum()) for node in result.record.nodes)
    assert evictions == window > 100
    # A node that was away begins with room, and counts on.
    assert (restarted.nodes[1].cache_evictions >= 0).all()


@pytest.mark.parametrize(
    ("cache", "path"),
    [
        ("{name: lru, admission: {name: none}}", "system.cache.admission.name"),
        ("{name: lru, admission: {name: probability, p: 1.1}}", "system.cache.admission.p"),
        ("{name: lru, admission: {name: size, c: 0B}}", "system.cache.admission.c"),
        ("{name: lru, admission: {name: second_hit, m: 2}}", "system.cache.admission.m"),
        ("{name: s3fifo, small: 1.5}", "system.cache.small"),
        ("{name: two_q, kin: -0.1}", "system.cache.kin"),
        ("{name: lirs, hir: 2}", "system.cache.hir"),
        ("{name: w_tinylfu, window: -1}", "system.cache.window"),
        ("{name: clock, bits: 0}", "system.cache.bits"),
        ("{name: ttl, ttl: 0s}", "system.cache.ttl"),
        ("{name: arc, small: 0.1}", "system.cache.small"),
    ],
)
def test_wrong_parameters_are_refused_when_they_are_loaded(cache: str, path: str) -> None:
    with pytest.raises(ConfigError) as raised:
        small(f"system.cache={cache}")
    assert raised.value.path == path
