"""The registry of plug-ins: what it takes to be in it, and how it is asked."""

from __future__ import annotations

import importlib.metadata
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass

import pytest

from orchestrator.core import registry
from orchestrator.core.registry import Family, NoParams, Slot, plugin, plugins, register
from orchestrator.errors import ConfigError

NAME = "registry_test_law"


@dataclass(frozen=True)
class Params:
    width: int = 3


@dataclass(frozen=True)
class TakesTheName:
    name: str = "taken"


class Thing:
    """A thing to register.

    More about it.
    """


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    registry._plugins[Family.DISTRIBUTION].pop(NAME, None)


def test_a_registered_class_is_found_with_its_params_and_claims() -> None:
    register(Family.DISTRIBUTION, NAME, params=Params, claims={"eventual": "always"})(Thing)
    found = plugin(Family.DISTRIBUTION, NAME)
    assert (found.family, found.name) == (Family.DISTRIBUTION, NAME)
    assert (found.implementation, found.params) == (Thing, Params)
    assert found.claims == {"eventual": "always"}
    assert found.summary == "A thing to register"


def test_registration_is_last_wins() -> None:
    class Later(Thing):
        """Another."""

    register(Family.DISTRIBUTION, NAME)(Thing)
    register(Family.DISTRIBUTION, NAME, params=Params)(Later)
    assert plugin(Family.DISTRIBUTION, NAME).implementation is Later
    assert plugin(Family.DISTRIBUTION, NAME).params is Params


def test_a_plugin_without_params_has_none() -> None:
    register(Family.DISTRIBUTION, NAME)(Thing)
    assert plugin(Family.DISTRIBUTION, NAME).params is NoParams


def test_params_must_be_a_dataclass() -> None:
    with pytest.raises(TypeError, match="must be a dataclass"):
        register(Family.DISTRIBUTION, NAME, params=Thing)
    assert NAME not in plugins(Family.DISTRIBUTION)


def test_params_may_not_take_the_name_of_the_slot() -> None:
    with pytest.raises(TypeError, match="'name' is taken"):
        register(Family.DISTRIBUTION, NAME, params=TakesTheName)


def test_an_unknown_plugin_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError) as raised:
        plugin(Family.DISTRIBUTION, "exponentail", path="system.network.delay.name")
    assert raised.value.path == "system.network.delay.name"
    assert raised.value.message == "unknown distribution 'exponentail'"
    assert raised.value.hint == "did you mean 'exponential'?"


@pytest.mark.parametrize("family", Family)
def test_every_family_loads_its_own_plugins(family: Family) -> None:
    known = plugins(family)
    assert list(known) == sorted(known)
    assert all(each.family is family and each.name == name for name, each in known.items())
    assert all(is_dataclass(each.params) for each in known.values())


@pytest.mark.parametrize("family", Family)
def test_every_builtin_plugin_says_what_it_is(family: Family) -> None:
    assert [each.name for each in plugins(family).values() if not each.summary] == []


def test_a_slot_leads_to_its_class_and_travels() -> None:
    constant = plugin(Family.DISTRIBUTION, "constant")
    slot = Slot(Family.DISTRIBUTION, "constant", constant.params(value=5))
    assert slot.implementation is constant.implementation
    assert pickle.loads(pickle.dumps(slot)) == slot
    assert hash(slot) == hash(Slot(Family.DISTRIBUTION, "constant", constant.params(value=5)))


def test_plugins_of_other_distributions_come_in_by_entry_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class EntryPoint:
        def load(self) -> None:
            register(Family.DISTRIBUTION, NAME)(Thing)

    asked: list[str] = []

    def entry_points(*, group: str) -> list[EntryPoint]:
        asked.append(group)
        return [EntryPoint()]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    monkeypatch.setattr(registry, "_entry_points_loaded", False)
    monkeypatch.setitem(registry._loaded, Family.DISTRIBUTION, False)
    assert plugin(Family.DISTRIBUTION, NAME).implementation is Thing
    plugins(Family.DISTRIBUTION)
    assert asked == ["archbench.plugins"], "asked once a process"
