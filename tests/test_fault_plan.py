"""When faults strike and whom, and what conditions that overlap ask of a runtime."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.config.load import load_mapping
from orchestrator.core.fault_conditions import (
    Action,
    Burden,
    Conditions,
    Crash,
    Disturb,
    Pause,
    Reappear,
    Restart,
    Resume,
    Vanish,
    in_turns,
)
from orchestrator.core.fault_plan import FaultPlan
from orchestrator.core.faults import (
    WELL,
    Burdened,
    ClusterState,
    Disturbed,
    Down,
    LinkState,
    NodeState,
    Paused,
    leads,
    parse_target,
)
from orchestrator.core.units import NS_PER_MS, NS_PER_S

ROLES = {0: "follower", 1: "leader", 2: "follower"}
STATE = ClusterState((0, 1, 2), ROLES, clients=2, zones={0: "a", 1: "b", 2: "b"})


def plan_of(
    *faults: dict[str, Any], end_ns: int = 100 * NS_PER_S, seed: int = 1, led: bool = True
) -> FaultPlan:
    config = load_mapping({"faults": list(faults)})
    return FaultPlan(config.faults, seed, end_ns, remembers=True, led=led)


def victims(target: str, state: ClusterState = STATE, **more: Any) -> tuple[int, ...]:
    plan = plan_of({"name": "pause", "target": target, "at": "1s"} | more)
    plan.wake(NS_PER_S, state)
    return plan.strikes[0].victims if plan.strikes else ()


# --- whom -------------------------------------------------------------------------------


def test_targets_name_whom_they_say() -> None:
    assert victims("leader") == (1,)
    assert victims("2") == (2,)
    assert victims("all") == (0, 1, 2)
    assert victims("zone:b") == (1, 2)
    assert len(victims("count:2")) == 2
    assert victims("follower")[0] in (0, 2)
    assert len(victims("any")) == 1
    assert victims("authority", ClusterState((0, 1), {}, authority=2)) == (2,)
    assert victims("1", name="crash_client") == (1,)
    assert leads("follower/leader") and not leads("follower/candidate")


def test_a_fault_waits_for_a_leader_and_then_takes_anybody() -> None:
    plan = plan_of({"name": "pause", "target": "leader", "at": "1s"})
    nobody = ClusterState((0, 1, 2), {})
    assert plan.wake(NS_PER_S, nobody) == [] and not plan.strikes
    assert plan.next_wake_ns == NS_PER_S + 10 * NS_PER_MS
    plan.wake(plan.next_wake_ns, STATE)
    assert plan.strikes[0].victims == (1,)
    plan = plan_of({"name": "pause", "target": "leader", "at": "1s"})
    while not plan.strikes:
        plan.wake(plan.next_wake_ns, nobody)
    assert plan.strikes[0].at_ns == 2 * NS_PER_S and plan.strikes[0].victims == (0,)


@pytest.mark.parametrize("target", ["leader", "follower"])
def test_nobody_waits_for_a_leader_where_there_never_is_one(target: str) -> None:
    plan = plan_of({"name": "pause", "target": target, "at": "1s"}, led=False)
    plan.wake(NS_PER_S, ClusterState((0, 1, 2), dict.fromkeys(range(3), "replica")))
    assert [strike.at_ns for strike in plan.strikes] == [NS_PER_S]
    assert plan.strikes[0].victims == (0,) or target == "follower"


@pytest.mark.parametrize("text", ["", "leaders", "zone:", "count:0", "count:x", "-1", "1.5"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no target"):
        parse_target(text)


# --- when -------------------------------------------------------------------------------


def strike_times_ns(plan: FaultPlan) -> list[int]:
    while plan.next_wake_ns < 2**62:
        plan.wake(plan.next_wake_ns, STATE)
    return [strike.at_ns for strike in plan.strikes]


def test_periods_begin_at_their_first_strike_and_end_with_the_load() -> None:
    fault = {"name": "crash", "target": "0", "at": "2s", "every": "3s"}
    assert strike_times_ns(plan_of(fault, end_ns=11 * NS_PER_S)) == [
        2 * NS_PER_S, 5 * NS_PER_S, 8 * NS_PER_S,
    ]  # fmt: skip
    until = fault | {"until": "5s"}
    assert strike_times_ns(plan_of(until)) == [2 * NS_PER_S, 5 * NS_PER_S]


def test_random_strikes_follow_their_law_and_their_seed() -> None:
    fault = {"name": "duplication", "every": {"name": "exponential", "mean": "500ms"}}
    times = strike_times_ns(plan_of(fault))
    assert times == strike_times_ns(plan_of(fault))
    assert times != strike_times_ns(plan_of(fault, seed=2))
    assert 150 < len(times) < 260


def test_strikes_that_were_held_up_do_not_come_in_a_heap() -> None:
    fault = {"name": "duplication", "target": "0", "at": "1s", "every": "500ms", "lasts": "100ms"}
    plan = plan_of(fault)
    plan.wake(NS_PER_S, STATE)
    # What is late by less than a gap keeps to the schedule.
    plan.wake(1700 * NS_PER_MS, STATE)
    assert plan.next_wake_ns == 1800 * NS_PER_MS  # that one ends
    plan.wake(1800 * NS_PER_MS, STATE)
    assert plan.next_wake_ns == 2 * NS_PER_S
    # Sixteen were due: one comes, and the next a whole gap later.
    plan.wake(10 * NS_PER_S, STATE)
    assert [each.at_ns for each in plan.strikes] == [NS_PER_S, 1700 * NS_PER_MS, 10 * NS_PER_S]
    plan.wake(10_100 * NS_PER_MS, STATE)
    assert plan.next_wake_ns == 10_500 * NS_PER_MS


def test_waiting_for_a_leader_does_not_move_the_schedule() -> None:
    plan = plan_of({"name": "pause", "target": "leader", "at": "1s", "every": "5s"})
    nobody = ClusterState((0, 1, 2), {})
    while not plan.strikes:
        plan.wake(plan.next_wake_ns, nobody)
    plan.wake(4 * NS_PER_S, STATE)
    assert plan.strikes[0].at_ns == 2 * NS_PER_S and plan.next_wake_ns == 6 * NS_PER_S
    # After a longer delay the next comes a whole gap later.
    plan.wake(9 * NS_PER_S, STATE)
    plan.wake(11 * NS_PER_S, STATE)
    assert plan.next_wake_ns == 14 * NS_PER_S


def test_a_strike_of_a_mix_says_what_was_drawn() -> None:
    mix = [{"name": "pause"}, {"name": "crash"}, {"name": "slow", "weight": 0}]
    plan = plan_of({"name": "chaos", "every": "1s", "target": "0", "mix": mix})
    strike_times_ns(plan)
    assert {each.name for each in plan.strikes} == {"chaos: pause", "chaos: crash"}


def test_a_random_length_has_a_least() -> None:
    lasts = {"lasts": {"name": "exponential", "mean": "100ms"}, "at_least": "200ms"}
    plan = plan_of({"name": "pause", "target": "0", "every": "2s"} | lasts)
    strike_times_ns(plan)
    lengths = [each.until_ns - each.at_ns for each in plan.strikes if each.until_ns is not None]
    assert min(lengths) == 200 * NS_PER_MS < max(lengths)


def test_healing_ends_everything_but_what_is_gone() -> None:
    plan = plan_of(
        {"name": "pause", "target": "0", "at": "1s", "lasts": "1h"},
        {"name": "crash", "target": "1", "at": "1s", "restart_after": None},
        {"name": "lose_machine", "target": "2", "at": "1s"},
    )
    plan.wake(NS_PER_S, STATE)
    # Of a machine that stays away everybody knows now.
    assert plan.heal(9 * NS_PER_S) == [Resume(0), Restart(1), Reappear(2)]
    assert plan.keeps_down(2) and not plan.keeps_down(1)
    assert {strike.until_ns for strike in plan.strikes} == {9 * NS_PER_S}


# --- conditions -------------------------------------------------------------------------


def test_a_node_is_down_while_any_fault_says_so() -> None:
    conditions = Conditions()
    first, actions = conditions.impose(Down(0))
    assert actions == [Crash(0)]
    second, actions = conditions.impose(Down(0, power=True))
    assert actions == [Vanish(0), Crash(0, power=True)]
    assert conditions.vanished() == [0]
    assert conditions.lift(first) == []
    assert conditions.lift(second) == [Restart(0), Reappear(0)]
    assert conditions.vanished() == []


def test_a_machine_is_silent_while_its_power_is_gone() -> None:
    conditions = Conditions()
    power, actions = conditions.impose(Down(0, power=True))
    assert actions == [Vanish(0), Crash(0, power=True)]
    process, actions = conditions.impose(Down(0))
    assert actions == []
    # The machine is there again, and the process is not.
    assert conditions.lift(power) == [Reappear(0)]
    assert conditions.lift(process) == [Restart(0)]
    conditions.impose(Down(0, power=True))
    _, actions = conditions.impose(Down(0, power=True, gone=True))
    assert actions == [Crash(0, power=True, gone=True)]


def test_turns_keep_the_order_of_each_party() -> None:
    cut = {1: LinkState(cut=True)}
    actions: list[Action] = [
        Vanish(0), Crash(0, power=True), Disturb(0, cut), Pause(1), Disturb(-1, cut), Resume(1),
        Restart(0), Disturb(-1, {}),
    ]  # fmt: skip
    assert in_turns(actions) == [
        [Vanish(0), Pause(1), Disturb(-1, cut)],
        [Crash(0, power=True), Resume(1), Disturb(-1, {})],
        [Disturb(0, cut)],
        [Restart(0)],
    ]
    assert in_turns([]) == []


def test_pauses_overlap() -> None:
    conditions = Conditions()
    first, actions = conditions.impose(Paused(1))
    second, none = conditions.impose(Paused(1))
    assert (actions, none) == ([Pause(1)], [])
    assert conditions.lift(second) == [] and conditions.lift(first) == [Resume(1)]


def test_burdens_and_disturbances_add_up() -> None:
    conditions = Conditions()
    slow, skewed = NodeState(slowness=2.0), NodeState(slowness=3.0, offset_ns=5)
    first, _ = conditions.impose(Burdened(0, slow))
    _, actions = conditions.impose(Burdened(0, skewed))
    assert actions == [Burden(0, NodeState(slowness=6.0, offset_ns=5))]
    assert conditions.lift(first) == [Burden(0, skewed)]
    cut, lossy = LinkState(cut=True), LinkState(loss=0.5, bandwidth=10.0)
    number, actions = conditions.impose(Disturbed(((0, 1), (0, 2), (1, 0)), cut))
    assert actions == [Disturb(0, {1: cut, 2: cut}), Disturb(1, {0: cut})]
    _, actions = conditions.impose(Disturbed(((0, 1),), lossy))
    both = LinkState(cut=True, loss=0.5, bandwidth=10.0)
    assert actions == [Disturb(0, {1: both, 2: cut})]
    assert conditions.lift(number) == [Disturb(0, {1: lossy}), Disturb(1, {})]
    assert WELL + slow == slow and (lossy + lossy).loss == 0.75


# --- shapes of partitions ---------------------------------------------------------------


def cut_links(shape: str, nodes: int, target: str = "0", **more: Any) -> set[tuple[int, int]]:
    state = ClusterState(tuple(range(nodes)), {0: "leader"}, clients=1)
    fault = {"name": "partition", "shape": shape, "target": target, "at": "1s"} | more
    actions = plan_of(fault).wake(NS_PER_S, state)
    return {
        (action.party, receiver)
        for action in actions
        if isinstance(action, Disturb)
        for receiver in action.links
    }


def test_partitions_have_the_shape_that_they_say() -> None:
    assert cut_links("isolate", 3) == {(0, 1), (0, 2), (1, 0), (2, 0)}
    assert cut_links("isolate", 2, clients=True) == {(0, 1), (1, 0), (0, -1), (-1, 0)}
    assert cut_links("one_way", 3) == {(0, 1), (0, 2)}
    assert cut_links("one_way", 3, outward=False) == {(1, 0), (2, 0)}
    halves = cut_links("halves", 5)
    side = {here for here, _ in halves if (here, 0) not in halves}
    assert 0 in side and len(side) == 2 and len(halves) == 2 * 2 * 3
    bridge = cut_links("bridge", 5)
    assert not any(0 in link for link in bridge) and len(bridge) == 2 * 2 * 2
    ring = cut_links("ring", 5)
    for node in range(5):
        reached = [other for other in range(5) if other != node and (node, other) not in ring]
        assert len(reached) == 2
