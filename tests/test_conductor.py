"""The conductor of faults on Ray, with actors that only note what they are asked to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.config.load import load_mapping
from orchestrator.plan import plan
from orchestrator.runtimes import _conductor
from orchestrator.runtimes._conductor import Conductor
from orchestrator.runtimes._parts import Parts

DEADLINE_S = 10.0


def made(*faults: dict[str, Any], protocol: str = "raft") -> Parts:
    storage = {"durability": "fsync"}
    config = {
        "system": {
            "protocol": {"name": protocol},
            "replicas": 3,
            "node": {"costs": "measured", "storage": storage},
        },
        "clients": 2,
        "warmup": "0s",
        "duration": "1h",
        "faults": list(faults),
    }
    return plan(load_mapping(config))


@dataclass
class Told:
    """What somebody was told: one request and its answer to come."""

    party: str
    name: str
    arguments: tuple[Any, ...]


@dataclass
class Stage:
    """All actors; what was told before the conductor waited stands together."""

    waits: list[list[Told]] = field(default_factory=list)
    roles: Any = "leader"

    def actors(self, name: str, count: int) -> list[Any]:
        return [Party(self, f"{name}{number}") for number in range(count)]

    def gather(
        self, members: Sequence[Any], told: Sequence[Told], timeout_s: float, what: str
    ) -> list[Any]:
        if told and told[0].name == "role":
            return [self.roles for _ in told]
        assert [each.party for each in told] == [member.name for member in members]
        if told:
            self.waits.append(list(told))
        return [None for _ in told]

    @property
    def names(self) -> list[list[tuple[str, str]]]:
        return [sorted((each.party, each.name) for each in wait) for wait in self.waits]


@dataclass
class Party:
    """A member and its actor at once."""

    stage: Stage
    name: str

    @property
    def actor(self) -> Party:
        return self

    def call(self, name: str, *arguments: Any, timeout_s: float = 0.0) -> Told:
        return Told(self.name, name, arguments)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Remote(lambda *arguments: Told(self.name, name, arguments))


@dataclass
class Remote:
    remote: Callable[..., Told]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    found = Stage()
    monkeypatch.setattr(_conductor, "gather", found.gather)
    return found


def conducted(stage: Stage, parts: Parts, waits: int) -> Conductor:
    """A conductor whose run began two seconds ago, once it has waited so often, or failed."""
    origin_ns = time.monotonic_ns() - 2 * 10**9
    conductor = Conductor(
        parts, stage.actors("node", parts.machines), stage.actors("client", 2), origin_ns
    )
    deadline_s = time.monotonic() + DEADLINE_S
    while len(stage.waits) < waits and not conductor.problems:
        assert time.monotonic() < deadline_s, stage.waits
        time.sleep(0.005)
    return conductor


def test_clients_know_that_a_machine_is_silent_before_it_is_killed(stage: Stage) -> None:
    parts = made({"name": "power_loss", "target": "1", "at": "1s", "restart_after": "1h"})
    conductor = conducted(stage, parts, 2)
    assert stage.names == [
        [("client0", "vanish"), ("client1", "vanish")],
        [("node1", "crash")],
    ]
    assert [each.arguments for each in stage.waits[0]] == [(1,), (1,)]
    assert stage.waits[1][0].arguments[:2] == (True, False)
    conductor.heal()
    assert stage.names[2:] == [
        [("node1", "restart")],
        [("client0", "reappear"), ("client1", "reappear")],
    ]
    assert conductor.problems == []


def test_clients_are_told_of_nodes_that_they_know(stage: Stage) -> None:
    fault = {"name": "power_loss", "target": "authority", "at": "1s", "restart_after": "1h"}
    conductor = conducted(stage, made(fault, protocol="chain"), 1)
    conductor.heal()
    assert stage.names == [[("node3", "crash")], [("node3", "restart")]]


def test_what_is_asked_of_one_party_waits_for_what_was_asked_before(stage: Stage) -> None:
    faults = [
        {"name": "pause", "target": "0", "at": "100ms", "lasts": "100ms"},
        {"name": "delay", "target": "0", "at": "100ms", "lasts": "100ms"},
        {"name": "slow", "target": "0", "at": "300ms"},
    ]
    conductor = conducted(stage, made(*faults), 5)
    conductor.stop()
    of_first = [[each.name for each in wait if each.party == "node0"] for wait in stage.waits]
    # The third one is told in two ways that have nothing to do with each other.
    assert [names for names in of_first if names] == [
        ["pause"], ["afflict"], ["slow_down", "afflict"], ["resume"], ["afflict"],
    ]  # fmt: skip
    numbers = [each.arguments[0] for wait in stage.waits for each in wait if each.name == "afflict"]
    assert numbers == sorted(set(numbers)) and len(numbers) > 3


def test_a_conductor_that_fails_says_so(stage: Stage) -> None:
    # What no node answers: the plan fails when it looks at it.
    stage.roles = 7
    conductor = conducted(stage, made({"name": "pause", "target": "leader", "at": "1s"}), 99)
    conductor.heal()
    assert conductor.problems[0].startswith("faults ended early: AttributeError: 'int' object")
