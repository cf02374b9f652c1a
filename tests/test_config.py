"""The configuration layer: defaults, files, overrides, plug-in slots, interpolations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from config_toys import (
    BASE,
    YAML,
    CacheParams,
    CopyParams,
    Limits,
    LoadParams,
    OpenParams,
    VoteParams,
    Weight,
    make,
    put_toys,
    refused,
    remove_toys,
    system,
)

from orchestrator.config.load import ConfigSource, load, load_mapping, override
from orchestrator.config.schema import Objective, SearchRange, Slo
from orchestrator.core import registry
from orchestrator.core.parameters import Capacity
from orchestrator.core.registry import Family, Slot, plugin
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


def test_a_file_becomes_a_typed_config(file: Path) -> None:
    config = load(file)
    assert config.experiment == "kv"
    assert config.system.name == "toy_store"
    assert config.system.params.memory == 96 << 20
    assert config.system.params.protocol.params == CopyParams("async", 7_000_000)
    assert config.workload.params == LoadParams(100_000)
    assert config.arrival.params == OpenParams(2000.0)
    assert config.slo == Slo(p99=20_000_000, read=config.slo.read)
    assert config.slo.read.p99 == 5_000_000


def test_defaults_stand_where_the_file_is_silent() -> None:
    config = make()
    assert (config.experiment, config.seed, config.runtime) == ("experiment", 1, "ray")
    assert config.duration == 5_000_000_000
    assert config.tune.objectives == (Objective(),)
    params = system()
    assert params.protocol == Slot(Family.PROTOCOL, "toy_copy", CopyParams())
    assert params.cache is None
    assert params.steps == (1_000_000, 2_000_000)
    assert params.delay.params.value == 1_000_000
    assert params.limits == Limits(most=16), "the field's default, not the class's"
    assert params.delays == {} and params.parts == ()


def test_a_record_given_in_part_keeps_the_default_of_its_field() -> None:
    assert system("system.limits={strict: true}").limits == Limits(most=16, strict=True)
    assert system("system.limits.strict=true").limits == Limits(most=16, strict=True)


def test_a_slot_without_a_name_is_the_default_plugin() -> None:
    params = system("system.protocol={mode: async}")
    assert params.protocol == Slot(Family.PROTOCOL, "toy_copy", CopyParams("async"))
    assert system("system.delay={value: 3ms}").delay.params.value == 3_000_000
    assert system("system.delay.value=3ms").delay.params.value == 3_000_000


def test_an_override_wins_over_the_file(file: Path) -> None:
    config = load(file, "system.replicas=3", "slo.read.p99=7ms", "experiment=other")
    assert config.system.params.replicas == 3
    assert config.slo.read.p99 == 7_000_000
    assert config.slo.p99 == 20_000_000
    assert config.experiment == "other"


def test_an_override_with_a_mapping_replaces(file: Path) -> None:
    config = load(file, "system.protocol={name: toy_copy}", "slo={}")
    assert config.system.params.protocol.params == CopyParams()
    assert config.slo == Slo()


def test_the_last_of_two_overrides_wins() -> None:
    assert make("seed=3", "seed=4").seed == 4


def test_the_more_specific_override_wins_in_any_order() -> None:
    one, other = "slo={p99: 1ms, p50: 1ms}", "slo.p99=2ms"
    assert make(one, other).slo == make(other, one).slo == Slo(p50=1_000_000, p99=2_000_000)


def test_override_values_are_yaml() -> None:
    params = system(
        "system.title='5'", "system.steps=[3ms, 4ms]", "system.codes={a: 1}", "system.codes.b=2"
    )
    assert params.title == "5"
    assert params.steps == (3_000_000, 4_000_000)
    assert params.codes == {"a": 1, "b": 2}
    assert system("system.title=a=b").title == "a=b"
    assert system("system.limits.strict=yes").limits.strict is True


def test_a_new_name_drops_what_only_the_old_plugin_knew(file: Path) -> None:
    config = load(file, "system.protocol.name=toy_vote", "system.protocol.delay=90ms")
    assert config.system.params.protocol.params == VoteParams(90_000_000)
    # delay: 7ms of the file stays, because the new plug-in knows it: too small here.
    with pytest.raises(ConfigError, match=r"system\.protocol: heartbeat must be below delay"):
        load(file, "system.protocol.name=toy_vote")


def test_a_new_name_never_drops_what_an_override_gives() -> None:
    for overrides in (
        ("system.protocol.name=toy_vote", "system.protocol.mode=async"),
        ("system.protocol.mode=async", "system.protocol.name=toy_vote"),
    ):
        error = refused(*overrides)
        assert error.path == "system.protocol.mode"
        assert error.message == "unknown key 'mode' of protocol 'toy_vote'"


def test_the_same_name_drops_nothing() -> None:
    mapping = {**BASE, "arrival": {"name": "toy_open", "rate": "5/s", "typo": 1}}
    with pytest.raises(ConfigError, match="unknown key 'typo'"):
        load_mapping(mapping, "arrival.name=toy_open")


def test_a_new_name_of_the_system_switches_the_whole_slot() -> None:
    config = make("system.name=toy_empty")
    assert config.system == Slot(Family.SYSTEM, "toy_empty", registry.NoParams())
    assert make("arrival.name=toy_closed").arrival.params == registry.NoParams()


def test_a_bare_duration_is_a_constant_distribution() -> None:
    constant = plugin(Family.DISTRIBUTION, "constant").params
    params = system("system.delay=3ms", "system.delays={a: 0s}")
    assert params.delay == Slot(Family.DISTRIBUTION, "constant", constant(3_000_000))
    assert params.delays["a"] == Slot(Family.DISTRIBUTION, "constant", constant(0))
    switched = override(
        ConfigSource.of({**BASE, "system": {**BASE["system"], "delay": "4ms"}}),
        {"system.delay.name": "exponential", "system.delay.mean": "6ms"},
    )
    assert switched.system.params.delay.params.mean == 6_000_000


def test_lists_and_mappings_of_slots() -> None:
    params = system(
        "system.delays.slow.name=exponential",
        "system.delays.slow.mean=1ms",
        "system.parts=[{weight: 2, name: constant, value: 1us}, {weight: 1, name: pareto, "
        "scale: 1us, shape: 2}]",
        "system.parts[1].shape=3",
    )
    assert params.delays["slow"].params.mean == 1_000_000
    assert [weight for weight, _ in params.parts] == [Weight(2.0), Weight(1.0)]
    assert params.parts[1][1].params.shape == 3.0


def test_null_empties_an_optional_slot() -> None:
    filled = system("system.cache.name=toy_cache", "system.cache.size=64MiB").cache
    assert filled == Slot(Family.CACHE, "toy_cache", CacheParams(Capacity(64 << 20, True)))
    mapping = {**BASE, "system": {**BASE["system"], "cache": {"name": "toy_cache"}}}
    assert load_mapping(mapping).system.params.cache.params.size == Capacity(100, False)
    assert load_mapping(mapping, "system.cache=null").system.params.cache is None


def test_interpolations_reach_files_overrides_and_defaults() -> None:
    config = make(
        "warmup=${duration}",  # a default
        "client.timeout=${slo.read.p99}",
        "slo.read.p99=30ms",
        "system.delay=${system.delays.a}",
        "system.delays={a: {name: exponential, mean: 2ms}}",
        "experiment=kv-${system.replicas}",
    )
    assert config.warmup == config.duration
    assert config.client.timeout == 30_000_000
    assert config.system.params.delay == config.system.params.delays["a"]
    assert config.experiment == "kv-1"


def test_the_name_of_a_plugin_may_be_an_interpolation() -> None:
    mapping = {**BASE, "system": {**BASE["system"], "protocol": {"name": "toy_${system.title}"}}}
    config = load_mapping(mapping, "system.title=vote", "system.protocol.heartbeat=3ms")
    assert config.system.params.protocol.params == VoteParams(heartbeat=3_000_000)


def test_whole_numbers_may_be_written_as_floats_and_texts() -> None:
    assert make("workload.keys=1e6").workload.params.keys == 1_000_000
    assert make("workload.keys='12'").workload.params.keys == 12
    assert make("system.limits.shares=[1, 0]").system.params.limits.shares == (1.0, 0.0)


def test_records_in_lists_and_mappings() -> None:
    config = make(
        "tune.objectives[0].metric=latency_ms.all.p99",
        "tune.objectives.0.direction=minimize",
        "tune.search={system.replicas: {type: int, low: 1, high: 7}}",
        "tune.search.arrival.rate={type: float, low: 500/s, high: 2/ms}",
        "tune.search.system.replicas.high=5",
        "tune.search[arrival.rate].log=true",
    )
    assert config.tune.objectives == (Objective("latency_ms.all.p99", "minimize"),)
    assert config.tune.search == {
        "system.replicas": SearchRange("int", 1, 5),
        "arrival.rate": SearchRange("float", "500/s", "2000/s", log=True),
    }
