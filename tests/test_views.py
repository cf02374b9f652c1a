"""The configuration machine: leases, seals and views, message by message."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.core.keys import KeyRange
from orchestrator.core.machine import (
    Effect,
    Event,
    MachineContext,
    Persist,
    Received,
    Send,
    Started,
    TimerFired,
)
from orchestrator.core.parameters import ParameterError
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.units import NS_PER_MS
from orchestrator.protocols._views import (
    NOBODY,
    UNASKED_NS,
    AnyOfThem,
    Beat,
    Configuration,
    Grant,
    Membership,
    OneMayBeMissing,
    View,
    ViewParams,
)

PARAMS = ViewParams(heartbeat=10 * NS_PER_MS, lease=100 * NS_PER_MS, clock_drift=0.1)
ALLOWANCE_MS = 110


def context(node: int, nodes: int = 3) -> MachineContext:
    chance = scalar_stream(1, "views")
    return MachineContext(node, tuple(range(nodes)), KeyRange(4, 8), chance)


@dataclass
class Authority:
    """The authority of three nodes, and a clock in milliseconds."""

    kind: type[Configuration] = Configuration
    records: list[Any] = field(default_factory=list)
    now_ms: int = 0

    def __post_init__(self) -> None:
        self.machine = self.kind(context(3), PARAMS)
        self.effects = self.event(Started(list(self.records)))
        # What each node says to have heard of the authority.
        self.heard = dict.fromkeys(range(3), UNASKED_NS)

    def event(self, event: Event) -> list[Effect]:
        effects = self.machine.handle(event, self.now_ms * NS_PER_MS)
        self.machine.check()
        self.records += [effect.record for effect in effects if isinstance(effect, Persist)]
        return effects

    def beat(self, node: int, position: int = 0, **said: Any) -> list[Grant]:
        """The answers to a beat of this view, all that were sent."""
        asked: dict[str, Any] = {
            "asked_ns": self.now_ms * NS_PER_MS,
            "heard_ns": self.heard[node],
            "epoch": self.machine.view.epoch,
            "sealed": False,
            "position": position,
            "ready": False,
            "suspect": NOBODY,
        }
        self.effects = self.event(Received(node, Beat(**(asked | said))))
        self.heard[node] = self.now_ms
        return self.grants()

    def review(self) -> list[Grant]:
        self.effects = self.event(TimerFired("review"))
        return self.grants()

    def grants(self) -> list[Grant]:
        return [effect.message for effect in self.effects if isinstance(effect, Send)]

    def seal(self, **held: int) -> None:
        """These members report how much they hold."""
        for name, position in held.items():
            self.beat(int(name[1:]), position, sealed=True)

    @property
    def view(self) -> tuple[int, list[int], int]:
        view = self.machine.view
        return view.epoch, view.members, view.start


def test_the_first_view_is_of_all_nodes_and_leases_are_granted_at_once() -> None:
    authority = Authority()
    assert authority.view == (1, [0, 1, 2], 0)
    (grant,) = authority.beat(1)
    assert (grant.leased, grant.sealing, grant.view.epoch) == (True, False, 1)
    assert not authority.records


def test_a_silent_member_is_replaced_when_its_lease_has_surely_lapsed() -> None:
    authority = Authority()
    authority.beat(0)
    for authority.now_ms in (50, 100, ALLOWANCE_MS):
        authority.beat(1)
        authority.beat(2)
        # The lease is of 100 ms, and one clock may run 10 % faster than the other.
        assert not authority.machine.sealing
    authority.now_ms = ALLOWANCE_MS + 1
    grants = authority.review()
    assert authority.machine.sealing
    assert all(grant.sealing and not grant.leased for grant in grants)
    authority.seal(n1=7)
    assert authority.view == (1, [0, 1, 2], 0), "member 2 has not sealed"
    authority.seal(n2=9)
    assert authority.view == (2, [2, 1], 9), "the most advanced is first"
    assert authority.records == [View(2, [2, 1], 9)]


def test_a_view_is_told_with_its_record_and_never_before() -> None:
    authority = Authority(now_ms=0)
    authority.now_ms = ALLOWANCE_MS + 1
    authority.beat(1)
    authority.seal(n1=3)
    persists = [at for at, each in enumerate(authority.effects) if isinstance(each, Persist)]
    told = [
        at
        for at, each in enumerate(authority.effects)
        if isinstance(each, Send) and each.message.view.epoch == 2
    ]
    # In one handling: the barrier holds them back until the record is durable.
    assert len(persists) == 1 and len(told) >= 3


def test_who_was_put_out_gets_no_lease_and_who_is_sealing_neither() -> None:
    authority = Authority()
    authority.now_ms = ALLOWANCE_MS + 1
    authority.beat(1)
    assert authority.machine.sealing
    authority.now_ms += 1
    assert [grant.leased for grant in authority.beat(1)] == [False]
    authority.seal(n1=0)
    assert authority.view == (2, [1], 0)
    assert [grant.leased for grant in authority.beat(0, epoch=1)] == [False]
    assert [grant.leased for grant in authority.beat(1)] == [True]


def test_after_a_restart_it_waits_for_leases_that_it_may_have_granted() -> None:
    before = Authority(records=[View(5, [2, 0], 40)], now_ms=1000)
    assert before.view == (5, [2, 0], 40)
    for before.now_ms in (1050, 1100, 1000 + ALLOWANCE_MS):
        before.beat(2, 40)
        assert not before.machine.sealing
    before.now_ms += 1
    before.beat(2, 40)
    before.seal(n2=41)
    assert before.view == (6, [2], 41)


def test_only_who_holds_what_the_view_began_with_may_go_on_alone() -> None:
    authority = Authority(records=[View(5, [0, 1], 40)])
    authority.now_ms = ALLOWANCE_MS + 1
    authority.beat(1, 39)
    authority.seal(n1=39)
    assert authority.view == (5, [0, 1], 40), "what was committed before may be missing"
    # The other one of this last view comes back.
    authority.beat(0, 44)
    authority.seal(n0=44)
    assert authority.view == (6, [0, 1], 44)


@pytest.mark.parametrize(
    ("kind", "members"), [(Configuration, [2]), (OneMayBeMissing, []), (AnyOfThem, [2])]
)
def test_how_many_members_suffice(kind: type[Configuration], members: list[int]) -> None:
    authority = Authority(kind)
    authority.now_ms = ALLOWANCE_MS + 1
    authority.beat(2)
    if authority.machine.sealing:
        authority.seal(n2=5)
    assert authority.view[1] == (members or [0, 1, 2])


def test_one_that_caught_up_joins_at_the_end() -> None:
    authority = Authority(records=[View(5, [2, 0], 40)])
    authority.beat(1, 42, ready=True)
    assert authority.machine.sealing
    authority.seal(n2=44, n0=43)
    assert authority.view == (6, [2, 0, 1], 44)


def test_one_that_caught_up_in_an_earlier_view_does_not_join() -> None:
    authority = Authority(records=[View(5, [2, 0], 40)])
    authority.beat(1, 42, ready=True, epoch=4)
    assert not authority.machine.sealing


def test_one_that_holds_more_than_the_view_does_not_join() -> None:
    authority = Authority(AnyOfThem, records=[View(5, [2, 0], 40)])
    authority.beat(1, 50, ready=True)
    authority.seal(n2=44, n0=43)
    assert authority.view == (6, [2, 0], 44)


def test_a_member_that_its_predecessor_cannot_reach_is_replaced() -> None:
    authority = Authority()
    authority.beat(1, suspect=0)
    assert [grant.leased for grant in authority.beat(0)] == [True], "only of those behind it"
    authority.beat(0, suspect=1)
    authority.now_ms += 1
    assert [grant.leased for grant in authority.beat(1)] == [False]
    for authority.now_ms in (50, 100):
        authority.seal(n0=3, n1=3, n2=3)
        assert authority.view == (1, [0, 1, 2], 0), "its lease may still hold"
    authority.now_ms = ALLOWANCE_MS + 1
    authority.seal(n0=3)
    assert authority.view == (2, [0, 2], 3)


def test_a_member_that_hears_nothing_lapses() -> None:
    authority = Authority()
    for authority.now_ms in range(0, 300, 10):
        authority.beat(0, heard_ns=UNASKED_NS)
        authority.beat(1)
        authority.beat(2)
        if authority.machine.sealing:
            break
    assert 200 < authority.now_ms < 300


def test_a_report_of_a_seal_resumes_a_change_that_a_crash_interrupted() -> None:
    authority = Authority()
    authority.beat(1, 8, sealed=True)
    assert authority.machine.sealing
    authority.seal(n0=9, n2=8)
    assert authority.view == (2, [0, 1, 2], 9)


# --- the node's side --------------------------------------------------------------------


def member(*, static: bool = False) -> Membership:
    return Membership(context(0), PARAMS, static=static)


def granted(asked_ms: int, **other: Any) -> Grant:
    view = other.pop("view", View(1, [0, 1, 2], 0))
    return Grant(
        asked_ms * NS_PER_MS, 0, other.pop("leased", True), other.pop("sealing", False), view
    )


def test_a_lease_counts_from_the_time_of_asking() -> None:
    node = member()
    assert not node.serving(0)
    node.granted(granted(5), 60 * NS_PER_MS)
    assert node.serving(105 * NS_PER_MS - 1)
    assert not node.serving(105 * NS_PER_MS)
    # An answer that was overtaken does not shorten it.
    node.granted(granted(2), 61 * NS_PER_MS)
    assert node.serving(105 * NS_PER_MS - 1)


def test_no_lease_from_before_a_crash_or_from_the_future() -> None:
    node = member()
    node.started(50 * NS_PER_MS)
    node.granted(granted(49), 60 * NS_PER_MS)
    node.granted(granted(70), 60 * NS_PER_MS)
    assert not node.serving(60 * NS_PER_MS)


def test_a_grant_of_an_old_view_is_ignored() -> None:
    node = member()
    node.view = View(3, [0], 0)
    assert not node.granted(granted(5, sealing=True), 6 * NS_PER_MS)
    assert not node.serving(6 * NS_PER_MS)


def test_sealed_or_put_out_it_does_not_serve() -> None:
    node = member()
    node.granted(granted(5), 6 * NS_PER_MS)
    node.sealed = True
    assert not node.serving(7 * NS_PER_MS)
    node.sealed = False
    node.view = View(2, [1, 2], 0)
    assert not node.serving(7 * NS_PER_MS)
    assert member(static=True).serving(10**18)


def test_a_lease_of_less_than_two_heartbeats_is_refused() -> None:
    with pytest.raises(ParameterError):
        ViewParams(heartbeat=60, lease=100)
