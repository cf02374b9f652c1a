"""What a node of a cache tier does with reads and writes, one pattern after the other."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from scipy.stats import kstest
from tier_rig import TierNode

from orchestrator.core.cached_values import CachedValue, CachedValues
from orchestrator.core.caching import build_cache
from orchestrator.core.machine import FAIL, OK, READ, UNKNOWN, WRITE
from orchestrator.core.parameters import Capacity
from orchestrator.core.registry import Family, Slot, plugin
from orchestrator.core.tier import MISSED, REDIRECTED, REFUSED, WAIT, node_of
from orchestrator.core.units import NS_PER_MS, NS_PER_S

FETCHING = ["read_through", "write_through", "write_around", "write_back"]


@pytest.mark.parametrize("name", FETCHING)
def test_what_was_fetched_is_served_without_the_store(name: str) -> None:
    node = TierNode(name)
    first = node.read()
    assert node.said(first) is None
    node.answer(b"v", version=7)
    assert node.said(first) == (OK, b"v")
    second = node.read()
    assert node.said(second) == (OK, b"v")
    assert node.replies[-1].version == 7
    assert not node.asks
    assert (node.machine.cached.hits, node.machine.cached.misses) == (1, 1)


@pytest.mark.parametrize("name", FETCHING)
def test_nothing_there_is_not_kept(name: str) -> None:
    node = TierNode(name)
    handle = node.read()
    node.answer(None)
    assert node.said(handle) == (OK, None)
    node.read()
    assert len(node.asks) == 1


@pytest.mark.parametrize("name", FETCHING)
def test_one_fetches_for_all_who_miss_together(name: str) -> None:
    for single_flight, fetches in ((True, 1), (False, 3)):
        node = TierNode(name, single_flight=single_flight)
        handles = [node.read() for _ in range(3)]
        assert len(node.asks) == fetches
        while node.asks:
            node.answer(b"v")
        assert [node.said(handle) for handle in handles] == [(OK, b"v")] * 3


@pytest.mark.parametrize("name", ["read_through", "write_through", "write_around"])
def test_who_comes_after_a_write_does_not_wait_for_a_fetch_from_before_it(name: str) -> None:
    node = TierNode(name)
    early = node.read()
    writing = node.write(None if name == "read_through" else b"new")
    if name != "read_through":
        node.answer(at=1)  # the store has the write before it answers the fetch
    assert node.said(writing) is not None
    late = node.read()
    node.answer(b"old")
    assert node.said(early) == (OK, b"old")
    if name == "write_through":
        assert node.said(late) == (OK, b"new")  # it was kept
        return
    assert node.said(late) is None
    node.answer(b"new")
    assert node.said(late) == (OK, b"new")
    assert node.said(node.read()) == (OK, b"new")


@pytest.mark.parametrize("name", ["write_through", "write_around"])
def test_nothing_is_kept_while_a_write_is_under_way(name: str) -> None:
    node = TierNode(name)
    node.write(b"new")
    reading = node.read()
    node.answer(b"old", at=1)
    assert node.said(reading) == (OK, b"old")
    again = node.read()
    assert node.said(again) is None  # the store may have the write by now


def test_a_write_that_may_have_happened_is_never_over() -> None:
    node = TierNode("write_through")
    writing = node.write(b"new")
    node.answer(outcome=UNKNOWN)
    assert node.said(writing) == (UNKNOWN, None)
    for _ in range(2):
        node.read()
        node.answer(b"old")
    assert node.machine.cached.hits == 0


def test_a_write_that_was_turned_away_did_not_happen() -> None:
    node = TierNode("write_through")
    writing = node.write(b"new")
    node.answer(outcome=REFUSED)
    assert node.said(writing) == (FAIL, None)
    node.read()
    node.answer(b"old")
    assert node.said(node.read()) == (OK, b"old")


def test_write_through_keeps_what_it_wrote_and_write_around_does_not() -> None:
    for name, hits in (("write_through", 1), ("write_around", 0)):
        node = TierNode(name)
        writing = node.write(b"new")
        assert node.said(writing) is None
        node.answer(version=3)
        assert node.said(writing) == (OK, None)
        reading = node.read()
        assert (node.said(reading) == (OK, b"new")) == bool(hits)
        assert node.machine.cached.hits == hits


def test_of_writes_that_overlap_none_is_kept() -> None:
    node = TierNode("write_through")
    node.write(b"one")
    node.write(b"two")
    node.answer()
    node.answer()
    node.read()
    assert len(node.asks) == 1
    node.answer(b"one")
    # Once all are over, things are as they were.
    node.write(b"three")
    node.answer()
    assert node.said(node.read()) == (OK, b"three")


# --- write-back -------------------------------------------------------------------------


def test_a_write_back_is_acknowledged_at_once_and_stored_later() -> None:
    node = TierNode("write_back", flush_after=10 * NS_PER_MS)
    assert node.said(node.write(b"one")) == (OK, None)
    assert node.said(node.write(b"two")) == (OK, None)
    assert node.said(node.read()) == (OK, b"two")
    node.until(9 * NS_PER_MS)
    assert not node.asks
    node.until(10 * NS_PER_MS)
    ((_, ask),) = node.asks
    assert (ask.op.kind, ask.op.value) == (WRITE, b"two")  # the first one was absorbed
    assert node.machine.unfinished == 1
    node.answer()
    assert node.machine.unfinished == 0


def test_values_of_a_key_are_stored_one_after_the_other() -> None:
    node = TierNode("write_back", flush_after=NS_PER_MS)
    node.write(b"one")
    node.until(NS_PER_MS)
    node.write(b"two")
    node.until(NS_PER_S // 10)
    assert [ask.op.value for _, ask in node.asks] == [b"one"]
    node.answer()
    node.until(NS_PER_S // 5)
    assert [ask.op.value for _, ask in node.asks] == [b"two"]
    assert node.said(node.read()) == (OK, b"two")


def test_what_the_store_did_not_take_is_written_again_in_the_same_session() -> None:
    node = TierNode("write_back", flush_after=NS_PER_MS)
    node.write(b"one")
    node.until(NS_PER_MS)
    first = node.asks[0][1].op
    node.answer(outcome=UNKNOWN)
    node.until(NS_PER_S // 10)
    second = node.asks[0][1].op
    assert (second.session, second.value) == (first.session, b"one")
    assert second.sequence > first.sequence


def test_what_has_no_room_is_stored_now_and_served_until_it_is() -> None:
    node = TierNode("write_back", size=2, flush_after=NS_PER_S)
    for key in (b"a", b"b", b"c"):
        node.write(key, key)
    assert [ask.op.key for _, ask in node.asks] == [b"a"]
    assert node.said(node.read(b"a")) == (OK, b"a")
    node.answer()
    node.read(b"a")
    assert [ask.op.kind for _, ask in node.asks] == [READ]


def test_where_too_much_is_dirty_a_write_waits_for_the_store() -> None:
    node = TierNode("write_back", dirty_max=1, flush_after=NS_PER_S)
    assert node.said(node.write(b"a", b"a")) == (OK, None)
    waiting = node.write(b"b", b"b")
    assert node.said(waiting) is None
    assert [ask.op.key for _, ask in node.asks] == [b"b"]
    newer = node.write(b"B", b"b")
    node.answer()
    assert node.said(waiting) == (OK, None)
    assert node.said(newer) is None
    node.answer()
    assert node.said(newer) == (OK, None)


# --- cache-aside ------------------------------------------------------------------------


def test_clients_look_fetch_and_fill() -> None:
    node = TierNode("cache_aside")
    node.read()
    assert node.replies[-1].version == MISSED
    node.write(b"v")
    assert node.said(node.read()) == (OK, b"v")
    node.write(None)
    node.read()
    assert node.replies[-1].version == MISSED
    assert not node.asks


def test_without_leases_what_is_filled_late_stays() -> None:
    node = TierNode("cache_aside")
    node.read()
    node.write(None)
    node.write(b"old")
    assert node.said(node.read()) == (OK, b"old")


def test_a_lease_ends_with_a_write_and_others_wait_for_it() -> None:
    node = TierNode("cache_aside", invalidation="lease", lease=NS_PER_S)
    node.read()
    lease = node.replies[-1].context
    assert lease
    node.read()
    assert (node.replies[-1].version, node.replies[-1].context) == (WAIT, b"")
    node.write(None)
    node.write(b"old", lease=lease)
    node.read()
    assert node.replies[-1].version == MISSED
    newer = node.replies[-1].context
    assert newer != lease
    node.write(b"older", lease=lease)
    node.write(b"new", lease=newer)
    assert node.said(node.read()) == (OK, b"new")


def test_a_lease_that_nobody_uses_is_given_to_another() -> None:
    node = TierNode("cache_aside", invalidation="lease", lease=NS_PER_S)
    node.read()
    node.until(NS_PER_S)
    node.read()
    assert node.replies[-1].version == MISSED


# --- asking the store -------------------------------------------------------------------


def test_redirects_are_followed_and_remembered() -> None:
    node = TierNode("write_around", stores=3)
    reading = node.read()
    assert node.asks[0][0] == 0
    node.answer(outcome=REDIRECTED, node=2)
    assert node.asks[0][0] == 2
    node.answer(b"v")
    assert node.said(reading) == (OK, b"v")
    node.read(b"other")
    assert node.asks[0][0] == 2
    # A write has a place of its own.
    node.write(b"w", b"third")
    assert node.asks[1][0] == 0


def test_while_nobody_is_known_to_serve_the_others_are_asked() -> None:
    node = TierNode("write_around", stores=3)
    node.read()
    node.answer(outcome=REDIRECTED, node=-1)
    assert not node.asks
    node.until(NS_PER_S // 100)
    assert node.asks[0][0] == 1
    # Who does not answer at all is left as well.
    node.until(NS_PER_S // 4)
    assert [target for target, _ in node.asks] == [1, 2]


@pytest.mark.parametrize(("known_again", "asked"), [(True, 2), (False, 1)])
def test_a_write_is_asked_for_again_only_where_it_is_known_again(
    known_again: bool, asked: int
) -> None:
    node = TierNode("write_around", known_again=known_again, resend=NS_PER_MS)
    node.write(b"v")
    node.until(NS_PER_MS)
    assert len(node.asks) == asked
    assert len({(ask.op.session, ask.op.sequence, ask.number) for _, ask in node.asks}) == 1


def test_what_the_store_does_not_answer_is_asked_again_less_often_but_not_ever_less() -> None:
    """After a long outage it must not be long until the store is asked."""
    node = TierNode("write_back", resend=NS_PER_MS, flush_after=NS_PER_MS)
    node.write(b"1")
    asked_ns = []
    for now_ms in range(1, 100):
        known = len(node.asks)
        node.until(now_ms * NS_PER_MS)
        asked_ns += [now_ms] * (len(node.asks) - known)
    pauses = [later - sooner for sooner, later in itertools.pairwise(asked_ns)]
    assert pauses[:4] == [1, 2, 4, 8]
    assert set(pauses[4:]) == {8}
    assert {ask.number for _, ask in node.asks} == {node.asks[0][1].number}


def test_a_fetch_that_takes_too_long_has_failed() -> None:
    node = TierNode("write_around", resend=NS_PER_MS, give_up=10 * NS_PER_MS)
    handle = node.read()
    node.until(20 * NS_PER_MS)
    assert node.said(handle) == (FAIL, None)
    node.answer(b"late")
    node.read()
    assert len(node.asks) > 0  # what came too late was not kept


# --- values and their time ----------------------------------------------------------------


def values(ttl_ns: int | None = None, early: float = 0.0, size: int = 10) -> CachedValues:
    lru = plugin(Family.CACHE, "lru")
    slot = Slot(Family.CACHE, "lru", lru.params(size=Capacity(size, in_bytes=False)))
    return CachedValues(
        build_cache(slot, random.Random(1)), random.Random(2), ttl_ns=ttl_ns, early=early
    )


def test_what_is_older_than_its_time_is_missing() -> None:
    cached = values(ttl_ns=100)
    cached.keep(b"k", b"v", 1, 10, 0, 1000)
    assert cached.look(b"k", 10, 1099) is not None
    assert cached.look(b"k", 10, 1100) is None
    assert b"k" not in cached


def test_who_has_left_is_told() -> None:
    cached = values(size=1)
    cached.left = []
    cached.keep(b"a", b"1", 1, 10, 0, 0)
    cached.keep(b"b", b"2", 1, 10, 0, 0)
    assert cached.left == [b"a"]
    assert cached.evictions == 1
    cached.drop(b"b")
    assert cached.left == [b"a"]


def test_one_refreshes_early_as_the_paper_says() -> None:
    # Vattani, Chierichetti and Lowenstein (PVLDB 2015): how long before the end a reader takes it
    # for over is exponential, with the mean of beta fetch times.
    fetch_ns, beta = 1000, 2.0
    cached = values(ttl_ns=10**9, early=beta)
    ahead = []
    for _ in range(1000):
        held = CachedValue(b"v", 0, 10**9, fetch_ns)
        low, high = 0, 10**9
        state = cached._chance.getstate()
        while high - low > 1:
            middle = (low + high) // 2
            cached._chance.setstate(state)
            low, high = (low, middle) if cached.wants_refresh(held, middle) else (middle, high)
        ahead.append(10**9 - high)
    assert kstest(ahead, "expon", args=(0, fetch_ns * beta)).pvalue > 1e-3
    assert math.isclose(sum(ahead) / len(ahead), fetch_ns * beta, rel_tol=0.1)


@pytest.mark.parametrize("name", FETCHING)
def test_a_refresh_serves_the_old_value_meanwhile(name: str) -> None:
    node = TierNode(name, ttl_ns=100, early=1e6)
    node.read()
    node.now_ns = 5
    node.answer(b"v")
    assert node.said(node.read()) == (OK, b"v")
    assert len(node.asks) == 1
    node.read()
    assert len(node.asks) == 1  # one is enough
    node.now_ns = 50
    node.answer(b"w")
    node.now_ns = 120
    assert node.said(node.read()) == (OK, b"w")


def test_keys_are_dealt_out_evenly_and_few_move() -> None:
    keys = [b"key%d" % number for number in range(20_000)]
    for count in (2, 3, 7):
        nodes = range(5, 5 + count)
        owners = [node_of(key, nodes) for key in keys]
        shares = [owners.count(node) / len(keys) for node in nodes]
        assert max(shares) < 1.1 / count
        fewer = [node_of(key, nodes[:-1]) for key in keys]
        moved = [old for old, new in zip(owners, fewer, strict=True) if old != new]
        assert set(moved) <= {nodes[-1]}
