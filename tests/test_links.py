"""Links of real runs are probed: what was asked of them, and what they took."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from orchestrator.analysis.links import figures
from orchestrator.config.load import load_mapping
from orchestrator.core.distributions import ConstantParams
from orchestrator.core.machine import REQUEST
from orchestrator.core.record import LinkRecord
from orchestrator.core.registry import Family, Slot
from orchestrator.core.units import NS_PER_MS
from orchestrator.plan import plan
from orchestrator.runtimes import _link_survey, simulated
from orchestrator.runtimes._link_probe import PROBES, Probes, link_record, session_of
from orchestrator.runtimes._link_survey import leads_ns
from orchestrator.runtimes._network import Link, Sender
from orchestrator.runtimes.ray_cluster import RayRuntime
from orchestrator.systems.replicated_store import Network


def config(**network: Any) -> dict[str, Any]:
    return {
        "experiment": "links",
        "system": {
            "protocol": {"name": "raft"},
            "replicas": 3,
            "node": {"costs": "measured"},
            "network": network,
        },
        "workload": {"keys": 50},
        "arrival": {"name": "constant", "rate": "100/s"},
        "warmup": "300ms",
        "duration": "700ms",
    }


class Record:
    def __init__(self, *links: LinkRecord) -> None:
        self.links = links


def link(asked_ms: float, excess_ms: float, source: str = "n0") -> LinkRecord:
    got_ms = asked_ms + excess_ms
    return LinkRecord(
        source, "n1", asked_ms * NS_PER_MS, got_ms * NS_PER_MS, excess_ms * NS_PER_MS, 20
    )


def test_links_are_told_together_with_the_worst() -> None:
    found: Any = figures([Record(link(1, 0.1), link(3, 0.3, "client 0"))])  # type: ignore[list-item]
    assert found["asked_ms"] == pytest.approx(2)
    assert found["got_ms"] == pytest.approx(2.2)
    assert found["excess_p50_ms"] == pytest.approx(0.2)
    assert found["as_asked"]
    assert found["worst"]["source"] == "client 0"
    assert len(found["pairs"]) == 2
    assert figures([Record()]) is None  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("asked_ms", "excess_ms", "as_asked"),
    [
        (0, 0.4, True),
        (0, 0.6, False),
        (1, 0.6, False),
        (50, 4, True),
        (50, 6, False),
        (50, -6, False),
    ],
)
def test_a_link_may_be_off_by_a_tenth_or_half_a_millisecond(
    asked_ms: float, excess_ms: float, as_asked: bool
) -> None:
    found: Any = figures([Record(link(5, 0), link(asked_ms, excess_ms))])  # type: ignore[list-item]
    assert found["as_asked"] == as_asked


def test_a_record_halves_the_round_trips() -> None:
    found = link_record("n0", "n1", [(300, 200), (500, 400), (700, 200)])
    assert found.got_ns == 250
    assert found.asked_ns == pytest.approx(800 / 6)
    assert (found.excess_ns, found.probes) == (50, 3)


def test_what_is_no_part_of_a_link_is_left_out() -> None:
    clock: Any = Clock()
    probes = Probes(clock, wait_ns=4)

    def one(number: int) -> int:
        probes.back(number, 7, clock.now_ns())
        return 0

    asyncio.run(probes.send(one))
    assert probes.samples == [(6, 3)] * PROBES


def test_what_messages_take_comes_off_both_ways() -> None:
    parties = {"n0": 0, "n1": 1, "client 0": -1}

    def between(source: str, target: str, excess_ns: float) -> LinkRecord:
        return LinkRecord(source, target, 0, 0, excess_ns, 1)

    links = [
        between("n0", "n1", 50.7),
        between("n1", "n0", -3),
        between("client 0", "n0", 20),
        between("client 0", "n1", 30),
    ]
    assert leads_ns(links, parties) == {0: {1: 50, -1: 20}, 1: {0: 0, -1: 30}, -1: {0: 20, 1: 30}}


@pytest.mark.parametrize(
    ("itself_ns", "told_ns", "left_ns"),
    [
        # What each probing finds that a message takes of itself; what then comes off its delay.
        ([200_000, 200_000], [200_000], 0),
        ([200_000, 170_000], [200_000], -30_000),
        # The host stood still during the first probes.
        ([900_000, 200_000, 200_000], [900_000, 200_000], 0),
        ([900_000, 300_000, 200_000, 200_000], [900_000, 300_000, 200_000], 0),
        ([200_000, 900_000], [200_000], 700_000),
        # It always does: what is left is told.
        ([900_000, 600_000, 300_000, 0], [900_000, 600_000, 300_000], -300_000),
    ],
)
def test_links_that_come_early_are_set_right_again(
    monkeypatch: pytest.MonkeyPatch, itself_ns: list[int], told_ns: list[int], left_ns: int
) -> None:
    told: list[int] = []
    turns = iter(itself_ns)

    class Party:
        def call(self, what: str, leads_ns: dict[int, int]) -> None:
            assert what == "lead"
            told.extend(leads_ns.values())

    def probe(members: Any, names: list[str]) -> tuple[LinkRecord, ...]:
        excess_ns = next(turns) - (told[-1] if told else 0)
        return (LinkRecord("client 0", "n0", 1_000_000, 1_000_000 + excess_ns, excess_ns, 10),)

    monkeypatch.setattr(_link_survey, "_probe", probe)
    monkeypatch.setattr(_link_survey, "gather_all", lambda *_: None)
    links, leads = _link_survey.probed_links([cast(Any, Party())], [cast(Any, Party())])
    # Both ends are told, of one way each.
    assert told[::2] == told[1::2] == told_ns
    assert leads == {0: {-1: told_ns[-1]}, -1: {0: told_ns[-1]}}
    assert [(link.lead_ns, link.excess_ns) for link in links] == [(told_ns[-1], left_ns)]
    assert next(turns, None) is None


def test_a_link_with_a_lead_delivers_early_by_it() -> None:
    delay = Slot(Family.DISTRIBUTION, "constant", ConstantParams(200_000))
    network = Network(delay=delay, jitter=Slot(Family.DISTRIBUTION, "constant", ConstantParams(0)))
    link = Link(Sender(network, 1, "a"))
    due_ns: list[int] = []
    link.lead_ns = 50_000
    assert link.carry(lambda at, *_: due_ns.append(at), 1000, REQUEST, 10, print, None)
    assert due_ns == [151_000]


class Clock:
    now = 0

    def now_ns(self) -> int:
        self.now += 10
        return self.now

    moment_ns = now_ns


def test_answers_that_nothing_asked_for_are_no_samples() -> None:
    clock: Any = Clock()
    probes = Probes(clock)

    def one(number: int) -> int:
        probes.back(number, 7, clock.now_ns())
        probes.back(number + 1000, 7, 0)
        probes.back(-1, 7, 0)
        return 0

    asyncio.run(probes.send(one))
    assert probes.samples == [(10, 7)] * PROBES


def test_what_is_no_probe_is_refused() -> None:
    assert session_of(bytes(24)) == 0
    with pytest.raises(ValueError, match="malformed"):
        session_of(b"short")


def test_the_simulator_has_no_links_but_its_model() -> None:
    parts = plan(load_mapping(config() | {"system": {}}))
    assert simulated.run(parts).links == ()


@pytest.mark.serial
def test_links_of_processes_take_what_was_asked_and_load_is_not_held_up(
    runtime: RayRuntime,
) -> None:
    laws = {"request": "9ms", "response": "3ms"}
    parts = plan(load_mapping(config(delay="4ms", delays=laws)))
    assert isinstance(parts.store.network, Network)
    record = runtime.run(parts)
    links = {(each.source, each.target): each for each in record.links}
    assert len(links) == 3 * 2 + 3
    for (source, target), each in links.items():
        asked_ms = 6 if source.startswith("client") else 4
        # In order: a probe may have to stay behind an answer.
        assert asked_ms * NS_PER_MS <= each.asked_ns < (asked_ms + 1) * NS_PER_MS
        assert each.probes == PROBES
        # A busy machine takes longer. What all probes took comes off, so some are a little early.
        assert -NS_PER_MS < each.excess_ns < 20 * NS_PER_MS, (source, target)
        assert 0 <= each.lead_ns < 5 * NS_PER_MS
        assert each.stamped
    # There and back, and twice more where the first node asked was not the leader.
    took_ms = (record.history.returned_ns - record.history.intended_ns) / NS_PER_MS
    assert took_ms.min() >= 11
    # Votes may be split at first.
    assert (took_ms < 200).mean() > 0.5
