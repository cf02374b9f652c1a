"""Each cache policy's own rules: against naive models, and one by one where they are special."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import cache_models
import pytest
from cache_rig import CACHES, FORGET, feed, make, name_of, residents, steps_of
from hypothesis import given, settings
from hypothesis import strategies as st

MODELS: dict[str, type[cache_models.Model]] = {
    "clock": cache_models.Clock,
    "fifo": cache_models.Fifo,
    "lfu": cache_models.Lfu,
    "lirs": cache_models.Lirs,
    "lru": cache_models.Lru,
    "s3fifo": cache_models.S3Fifo,
    "sieve": cache_models.Sieve,
    "ttl": cache_models.Lru,  # as long as nothing expires
    "two_q": cache_models.TwoQ,
}
compared = settings(max_examples=150, derandomize=True, deadline=None)


@pytest.mark.parametrize("name", sorted(MODELS))
@given(steps=steps_of(15), amount=st.integers(1, 40))
@compared
def test_changing_sizes_agree_with_a_naive_model(
    name: str, steps: list[tuple[int, int]], amount: int
) -> None:
    cache, model = make(name, f"{amount}B"), MODELS[name](amount)
    assert (feed(cache, steps), cache.evictions) == (model.feed(steps), model.evictions)


@pytest.mark.parametrize("name", sorted(MODELS))
@given(steps=st.lists(st.tuples(st.integers(0, 30), st.just(1)), max_size=300))
@compared
def test_many_entries_agree_with_a_naive_model(name: str, steps: list[tuple[int, int]]) -> None:
    cache, model = make(name, 12), MODELS[name](12)
    assert (feed(cache, steps), cache.evictions) == (model.feed(steps), model.evictions)


# --- ttl --------------------------------------------------------------------------------


def test_an_entry_expires_a_time_to_live_after_it_was_put_in_hit_or_not() -> None:
    cache = make("ttl", 10, ttl=100)
    cache.departed = []
    assert [cache.access(b"a", 1, now_ns) for now_ns in (5, 60, 104)] == [False, True, True]
    assert not cache.access(b"a", 1, 105)
    assert cache.departed == [b"a"]
    assert [cache.access(b"a", 1, now_ns) for now_ns in (204, 205)] == [True, False]
    assert cache.evictions == 0


def test_what_expired_makes_room_before_anything_else_leaves() -> None:
    cache = make("ttl", 2, ttl=100)
    cache.departed = []
    hits = [cache.access(key, 1, now) for key, now in [(b"a", 0), (b"b", 50), (b"a", 60)]]
    assert hits == [False, False, True]
    # b is the least recently used one, and stays.
    assert not cache.access(b"c", 1, 100)
    assert (b"b" in cache, cache.departed, cache.evictions) == (True, [b"a"], 0)
    assert not cache.access(b"d", 1, 101)
    assert (b"b" in cache, cache.departed, cache.evictions) == (False, [b"a", b"b"], 1)


def test_time_goes_on_without_an_access_and_never_back() -> None:
    cache = make("ttl", 2, ttl=100)
    cache.access(b"a", 1, 1000)
    cache.advance(1099)
    assert b"a" in cache
    cache.advance(1100)
    assert b"a" not in cache
    # At 1000 of a clock that was set back it is put in as if it were still 1100.
    assert [cache.access(b"a", 1, now) for now in (1000, 1199, 1200)] == [False, True, False]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30), st.booleans()), max_size=60),
    st.integers(1, 5),
)
@compared
def test_ttl_agrees_with_a_naive_model(steps: list[tuple[int, int, bool]], amount: int) -> None:
    """Steps: (key, time since the last one, whether it is forgotten)."""
    cache, model = make("ttl", amount, ttl=50), cache_models.Lru(amount)
    born: dict[int, int] = {}
    now_ns = 0
    for key, passed_ns, forgotten in steps:
        now_ns += passed_ns
        cache.advance(now_ns)
        for held in [each for each in model.sizes if now_ns - born[each] >= 50]:
            model.leave(held)
        assert {each for each in range(6) if name_of(each) in cache} == model.sizes.keys()
        if forgotten:
            cache.forget(name_of(key))
            model.step(key, FORGET)
        else:
            assert cache.access(name_of(key), 1, now_ns) == (key in model.sizes)
            born[key] = born[key] if model.step(key, 1) else now_ns
        assert cache.evictions == model.evictions


# --- rules of their own -----------------------------------------------------------------


@given(steps=st.lists(st.tuples(st.integers(0, 30), st.just(1)), max_size=300))
@compared
def test_arc_remembers_no_more_than_the_paper_allows(steps: list[tuple[int, int]]) -> None:
    cache: Any = make("arc", 8)
    for step in steps:
        feed(cache, [step])
        recent = cache._recent.used + cache._recent_ghosts.used
        frequent = cache._frequent.used + cache._frequent_ghosts.used
        assert recent <= 8
        assert recent + frequent <= 16
        assert 0 <= cache._target <= 8


def test_arc_gives_room_to_what_its_ghosts_ask_for() -> None:
    cache: Any = make("arc", 4)
    feed(cache, [(1, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1)])
    assert cache._target == 0
    # 2 left the recent entries last; that it comes back says that they had too little room.
    assert feed(cache, [(2, 1)]) == [False]
    assert cache._target == 1


@pytest.mark.parametrize("unit", ["", "B"])
@given(steps=steps_of(15), amount=st.integers(1, 30))
@compared
def test_lirs_remembers_no_more_ghosts_than_it_has_room(
    unit: str, steps: list[tuple[int, int]], amount: int
) -> None:
    cache: Any = make("lirs", f"{amount}{unit}" if unit else amount)
    for step in steps:
        feed(cache, [step])
        low, ghosts = cache._low.entries, cache._ghosts
        assert ghosts.used <= amount
        assert set(cache._stack) <= {*low, *cache._high.entries, *ghosts.entries}
        assert set(cache._stack) >= {*low, *ghosts.entries}
        assert not cache._stack or next(iter(cache._stack)) in low


@pytest.mark.parametrize("name", ["lirs", "s3fifo", "two_q", "w_tinylfu"])
def test_a_segment_has_room_for_at_least_one_entry(name: str) -> None:
    share = {"lirs": "hir", "s3fifo": "small", "two_q": "kin", "w_tinylfu": "window"}[name]
    steps = [(key % 7, 1) for key in range(50)]
    for amount in (1, 2, 5):
        none = feed(make(name, amount, **{share: 0.0}), steps)
        assert none == feed(make(name, amount, **{share: 1 / amount}), steps)
        all_but_one = feed(make(name, amount, **{share: (amount - 1) / amount}), steps)
        assert all_but_one == feed(make(name, amount, **{share: 1.0}), steps)


def test_w_tinylfu_keeps_what_is_accessed_often_from_what_comes_once() -> None:
    """Where all accesses count, as in the paper. LRU keeps none of the ten."""
    often = [(key, 1) for key in range(10)] * 8
    once = [(key, 1) for key in range(100, 400)]
    for name, params, left in (("w_tinylfu", {"counts": "all"}, 10), ("lru", {}, 0)):
        cache = make(name, 100, **params)
        feed(cache, often + once)
        assert len(residents(cache, often)) == left


def test_w_tinylfu_by_bytes_holds_an_entry_larger_than_its_window() -> None:
    cache = make("w_tinylfu", "1000B")
    steps = [(key, 10) for key in range(50)] + [(99, 900)]
    feed(cache, steps)
    held = residents(cache, steps)
    assert held[99] == 900
    assert sum(held.values()) <= 1000
    assert len(held) == 11


@pytest.mark.parametrize("name", CACHES)
def test_only_entries_and_a_bounded_number_of_ghosts_are_remembered(name: str) -> None:
    """Of 20,000 keys, by a cache of 50 entries."""
    cache = make(name, 50)
    feed(cache, [(key, 1) for key in range(20_000)])
    feed(cache, [(key, 1) for key in range(100)] * 20)
    assert sum(len(held) for held in containers(cache)) < 1000


def containers(holder: object) -> Iterator[Sized]:
    """Whatever has a length in an object and in the segments and tables it is made of."""
    slots = [slot for kind in type(holder).__mro__ for slot in getattr(kind, "__slots__", ())]
    for value in [getattr(holder, slot) for slot in slots]:
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Sized):
                yield each
            yield from containers(each)
