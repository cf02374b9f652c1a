"""Sources of variants, the unit of every path, and the search space in numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from config_toys import BASE, SEARCH, YAML, VoteParams, make, put_toys, remove_toys

from orchestrator.config.load import (
    ConfigSource,
    format_value,
    load,
    load_mapping,
    override,
    parse_value,
)
from orchestrator.config.search import axes
from orchestrator.core.parameters import Capacity
from orchestrator.errors import ConfigError


@pytest.fixture(autouse=True, scope="module")
def toys() -> Iterator[None]:
    put_toys()
    yield
    remove_toys()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kv.yaml"
    path.write_text(YAML, encoding="utf-8")
    return path


def test_a_source_stays_what_it_was(file: Path) -> None:
    source = ConfigSource.read(file)
    before = json.dumps(source.mapping)
    changed = source.with_values({"system.replicas": 3, "slo.read.p99": "9ms"})
    assert changed.build().system.params.replicas == 3
    assert changed.origin == source.origin == str(file)
    assert json.dumps(source.mapping) == before
    assert source.build() == load(file)


def test_override_builds_from_a_source_or_a_config() -> None:
    source = ConfigSource.of(BASE)
    for start in (source, source.build()):
        assert override(start, {"system.replicas": 3}) == make("system.replicas=3")


def test_a_source_knows_its_paths() -> None:
    source = ConfigSource.of(BASE)
    assert source.knows("system.protocol.mode")
    assert not source.knows("system.protocol.heartbeat")
    assert source.with_values({"system.protocol.name": "toy_vote"}).knows(
        "system.protocol.heartbeat"
    )


@pytest.mark.parametrize(
    ("path", "written", "canonical", "back"),
    [
        ("arrival.rate", "2/ms", 2000.0, "2000/s"),
        ("duration", "1500ms", 1_500_000_000, "1.5s"),
        ("system.memory", "1024KiB", 1 << 20, "1MiB"),
        ("system.bandwidth", "1GiB/s", 2.0**30, "1GiB/s"),
        ("system.bandwidth", None, None, None),
        ("system.cache.size", 5000, Capacity(5000, False), 5000),
        ("system.cache.size", "5000", Capacity(5000, False), 5000),
        ("system.cache.size", "5MiB", Capacity(5 << 20, True), "5MiB"),
        ("system.delay.value", "1000us", 1_000_000, "1ms"),
        ("system.delays.slow.mean", "2ms", 2_000_000, "2ms"),
        ("system.steps[0]", "2ms", 2_000_000, "2ms"),
        ("system.replicas", "3", 3, 3),
        ("system.protocol.name", "toy_vote", "toy_vote", "toy_vote"),
        ("client.sticky", "true", True, True),
        ("slo.error_rate", 1, 1.0, 1.0),
    ],
)
def test_every_path_has_its_unit(path: str, written: Any, canonical: Any, back: Any) -> None:
    source = ConfigSource.of(BASE).with_values(
        {
            "system.cache.name": "toy_cache",
            "system.delays": {"slow": {"name": "exponential", "mean": "1ms"}},
        }
    )
    for start in (source, source.build()):
        parsed = parse_value(start, path, written)
        assert parsed == canonical and type(parsed) is type(canonical)
        assert format_value(start, path, parsed) == back


def test_a_bare_number_at_a_capacity_means_entries() -> None:
    source = ConfigSource.of(BASE).with_values({"system.cache.name": "toy_cache"})
    assert format_value(source, "system.cache.size", 70) == 70


def test_a_wrong_value_or_path_has_no_unit() -> None:
    with pytest.raises(ConfigError, match=r"arrival\.rate: '5ms' is not a rate"):
        parse_value(ConfigSource.of(BASE), "arrival.rate", "5ms")
    with pytest.raises(ConfigError, match=r"arrival\.rte: unknown key"):
        format_value(ConfigSource.of(BASE), "arrival.rte", 5.0)
    with pytest.raises(ConfigError, match=r"system\.replicas: null"):
        parse_value(ConfigSource.of(BASE), "system.replicas", None)


def test_axes_translate_bounds_to_numbers_and_back() -> None:
    mapping = {**BASE, "tune": {"search": SEARCH}}
    config = load_mapping(mapping, "system.cache.name=toy_cache")
    found = {axis.path: axis for axis in axes(config)}
    assert list(found) == sorted(SEARCH)
    bounds = {path: (axis.low, axis.high, axis.step) for path, axis in found.items()}
    assert bounds["arrival.rate"] == (500.0, 20_000.0, None)
    assert bounds["system.replicas"] == (1, 7, 2)
    assert bounds["system.cache.size"] == (1 << 20, 64 << 20, None)
    assert bounds["system.delay"] == (0, 5_000_000, None)
    assert bounds["system.protocol.heartbeat"] == (1_000_000, 5_000_000, 1_000_000)
    assert found["system.bandwidth"].choices == (None, "1GiB/s")
    assert found["arrival.rate"].log

    drawn = {
        "arrival.rate": 1234.5,
        "system.replicas": 3,
        "system.cache.size": 2 << 20,
        "system.delay": 1_000_000.4,
        "system.protocol.name": "toy_vote",
        "system.protocol.heartbeat": 2_000_000,
        "system.bandwidth": "1GiB/s",
    }
    values = {path: found[path].value(number) for path, number in drawn.items()}
    variant = override(ConfigSource.of(mapping), values | {"system.cache.name": "toy_cache"})
    params = variant.system.params
    assert variant.arrival.params.rate == 1234.5
    assert params.replicas == 3
    assert params.cache.params.size == Capacity(2 << 20, True)
    assert params.delay.params.value == 1_000_000
    assert params.protocol.params == VoteParams(heartbeat=2_000_000)
    assert params.bandwidth == 2.0**30


def test_a_whole_is_drawn_by_its_text() -> None:
    choices = [{"name": "toy_vote", "heartbeat": "2ms"}, {"name": "toy_copy"}]
    search = {"system.protocol": {"type": "categorical", "choices": choices}}
    source = ConfigSource.of({**BASE, "tune": {"search": search}})
    [axis] = axes(source.build())
    assert axis.chooses
    assert axis.sampled == ('{"heartbeat":"2ms","name":"toy_vote"}', '{"name":"toy_copy"}')
    assert [axis.value(drawn) for drawn in axis.sampled] == choices
    complete = source.complete()["system"]["protocol"]
    assert complete != choices[1]
    assert axis.reached(complete) == axis.reached(choices[1]) == axis.sampled[1]
    assert axis.reached({"name": "toy_vote", "heartbeat": "3ms"}) is None
    variant = source.with_values({axis.path: axis.value(axis.sampled[0])}).build()
    assert variant.system.params.protocol.params == VoteParams(heartbeat=2_000_000)


def test_a_searched_path_may_sleep_until_its_plugin_is_chosen() -> None:
    searched = {"system.protocol.heartbeat": {"type": "int", "low": "1ms", "high": "5ms"}}
    config = load_mapping({**BASE, "tune": {"search": searched}})
    assert config.tune.search["system.protocol.heartbeat"].high == "5ms"
    with pytest.raises(ConfigError) as raised:
        axes(config)
    assert raised.value.path == "tune.search.system.protocol.heartbeat"
    assert "of protocol 'toy_copy'" in raised.value.message
    chosen = override(config, {"system.protocol.name": "toy_vote", "system.protocol.delay": "1s"})
    assert [axis.high for axis in axes(chosen)] == [5_000_000]
