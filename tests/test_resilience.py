"""The figures of strikes: what is charged to whom, and what is said of all together."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy
import pytest
from made_records import history, record, steady
from test_faults import made

from orchestrator.analysis.durability import Survival
from orchestrator.analysis.resilience import (
    course_of,
    fault_figures,
    pooled_resilience,
    resilience,
)
from orchestrator.config.load import load_mapping
from orchestrator.core.fault_plan import Strike
from orchestrator.core.machine import WRITE
from orchestrator.core.record import EventRecord, RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.core.verdict import INVALID, UNDECIDED, VALID

NOTHING_LOST = Survival(VALID, (), 0, least=False)


def strike(
    name: str, at_s: float, *victims: int, until_s: float | None = None, number: int = 0
) -> Strike:
    until_ns = None if until_s is None else round(until_s * NS_PER_S)
    return Strike(number, name, "any", round(at_s * NS_PER_S), victims or (0,), until_ns)


def figures(
    strikes: list[Strike], survived: Survival = NOTHING_LOST, **changes: Any
) -> list[dict[str, Any]]:
    """Those of a run that the strikes do nothing to."""
    config = made(*({"name": each.name, "at": "3s"} | MIX.get(each.name, {}) for each in strikes))
    whole = dataclasses.replace(record(), faults=tuple(strikes), **changes)
    return fault_figures(whole, config.config, course_of(whole, config.config), survived)


MIX: dict[str, Any] = {"chaos": {"mix": [{"name": "pause"}, {"name": "loss"}]}}


# --- lost writes ------------------------------------------------------------------------


def charged(strikes: list[Strike], *acknowledged_s: float) -> list[int]:
    """Of writes that were acknowledged then and are gone."""
    returned_ns = [round(each * NS_PER_S) for each in acknowledged_s]
    written = history(len(returned_ns), kind=WRITE, returned_ns=returned_ns)
    lost = Survival(INVALID, tuple(range(len(returned_ns))), 0, least=False)
    found = figures(strikes, lost, history=written)
    return [each["lost_acknowledged_writes"] for each in found]


def test_a_loss_is_charged_to_the_first_strike_that_can_lose_something() -> None:
    harmless = [strike("slow", 3.0), strike("crash_client", 3.5), strike("loss", 4.0)]
    assert charged([*harmless, strike("power_loss", 5.0)], 1.0, 2.0, 4.5) == [0, 0, 0, 3]
    assert charged([strike("crash", 3.0), strike("lose_machine", 5.0)], 1.0, 4.0) == [1, 1]
    # Storage that fails may end the node at any time while it does.
    failing = strike("full_storage", 3.0, until_s=5.0)
    assert charged([failing, strike("loss", 6.0)], 2.0, 4.0) == [1, 1]
    assert charged([failing], 2.0, 4.0, 5.5) == [2]


def test_without_a_crash_a_failover_may_have_lost_it() -> None:
    assert charged([strike("crash_client", 3.0), strike("partition", 4.0)], 2.0) == [0, 1]
    assert charged([strike("chaos", 3.0)], 2.0) == [1]
    assert charged([strike("crash_client", 3.0)], 2.0) == [0]


# --- detection --------------------------------------------------------------------------


def detected_s(strikes: list[Strike], *roles: tuple[float, int]) -> list[float | None]:
    events = tuple(EventRecord(round(s * NS_PER_S), node, "role", "leader") for s, node in roles)
    return [each["detected_s"] for each in figures(strikes, events=events)]


def test_who_was_struck_detects_nothing() -> None:
    assert detected_s([strike("crash", 3.0, 1)], (2.9, 0), (3.2, 1), (3.5, 2)) == [0.5]
    assert detected_s([strike("crash", 3.0, 1)], (2.9, 0), (3.2, 1)) == [None]
    assert detected_s([strike("crash", 3.0, 1), strike("pause", 5.0, 0)], (5.5, 2)) == [None, 0.5]


def test_who_comes_back_from_another_fault_detects_nothing() -> None:
    both = [strike("crash", 3.0, 1), strike("crash", 3.0, 2)]
    assert detected_s(both, (3.1, 2), (3.2, 1), (3.5, 0)) == [0.5, 0.5]
    earlier = strike("crash", 3.0, 1, until_s=5.2)
    assert detected_s([earlier, strike("pause", 5.0, 0)], (5.3, 1), (5.5, 2)) == [None, 0.5]


def test_a_client_that_is_struck_is_no_node() -> None:
    assert detected_s([strike("crash_client", 3.0, 1)], (3.5, 1)) == [0.5]


# --- recovery ---------------------------------------------------------------------------


def outage(from_s: float, to_s: float) -> RunRecord:
    """A run of 10 s, 1,000 operations a second; what is due in the outage is late."""
    whole = steady(10_000, 10 * NS_PER_S)
    due_s = whole.intended_ns / NS_PER_S
    late = (due_s >= from_s) & (due_s < to_s)
    returned_ns = whole.intended_ns + numpy.where(late, 900 * NS_PER_MS, NS_PER_MS)
    return record(dataclasses.replace(whole, returned_ns=returned_ns))


def test_two_strikes_at_once_have_one_recovery() -> None:
    strikes = [strike("crash", 4.0, 0, number=0), strike("crash", 4.0, 1, number=1)]
    found = figures(strikes, history=outage(4.0, 4.8).history)
    assert [(each["recovered"], each["recovered_s"]) for each in found] == [(True, 0.8)] * 2
    later = [strike("crash", 4.0), strike("crash", 4.9)]
    found = figures(later, history=outage(4.0, 4.8).history)
    assert [each["recovered_s"] for each in found] == [0.8, 0.0]


def test_what_cannot_be_told_is_not_taken_for_never() -> None:
    never = figures([strike("crash", 4.0)], history=outage(4.0, 10.0).history)
    assert (never[0]["recovered"], never[0]["recovered_s"]) == (False, None)
    unknown = figures([strike("crash", 1.0)])
    assert (unknown[0]["recovered"], unknown[0]["recovered_s"]) == (None, None)


@pytest.mark.parametrize(("speed", "closed"), [(1, False), ("max", True)])
def test_a_trace_at_its_own_times_is_open_load(speed: Any, closed: bool) -> None:
    replayed = load_mapping({"experiment": "e", "arrival": {"name": "replay", "speed": speed}})
    assert course_of(record(offered_ops=None), replayed).closed == closed


# --- all together -----------------------------------------------------------------------


def test_all_strikes_together_tell_what_is_known() -> None:
    strikes = [strike("crash", 1.0), strike("crash", 4.0)]
    survived = Survival(INVALID, (3, 4), 7, least=True)
    whole = dataclasses.replace(record(), faults=tuple(strikes))
    config = made({"name": "crash", "at": "3s"}).config
    course = course_of(whole, config)
    told = fault_figures(whole, config, course, NOTHING_LOST)
    one = resilience(whole, course, told, survived)
    assert (one["strikes"], one["recovered"], one["recovery_unknown"]) == (2, 0, 2)
    assert (one["durability"], one["unread_keys"]) == (INVALID, 7)
    assert (one["lost_acknowledged_writes"], one["lost_is_least"]) == (2, True)


def test_repeats_are_as_good_as_the_worst_and_what_one_does_not_know_may_be_more() -> None:
    def part(survived: Survival) -> dict[str, Any]:
        config = made({"name": "crash", "at": "3s"}).config
        return resilience(record(), course_of(record(), config), [], survived)

    well, open_ = part(NOTHING_LOST), part(Survival(UNDECIDED, None, 7, least=False))
    worse = part(Survival(INVALID, (1, 2), 0, least=False))

    def pooled(*parts: dict[str, Any]) -> tuple[Any, ...]:
        found = pooled_resilience(parts, []) or {}
        names = ("durability", "lost_acknowledged_writes", "lost_is_least", "unread_keys")
        return tuple(found[name] for name in names)

    assert pooled(well, well) == (VALID, 0, False, 0)
    assert pooled(well, open_) == (UNDECIDED, None, False, 7)
    assert pooled(well, worse) == (INVALID, 2, False, 0)
    assert pooled(open_, worse) == (INVALID, 2, True, 7)
