"""A typed config: frozen, hashed, described, and the way back to text."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from config_toys import BASE, YAML, make, put_toys, remove_toys
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.describe import describe
from orchestrator.config.load import load, load_mapping
from orchestrator.config.render import config_hash, render_yaml, resolved
from orchestrator.config.schema import Config
from orchestrator.core import registry
from orchestrator.core.parameters import FrozenMapping
from orchestrator.core.registry import Family, plugin


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


def test_a_config_is_frozen_all_the_way_down() -> None:
    config = make(
        "system.delays={a: 1ms}", "tune.search={seed: {type: categorical, choices: [1, 2]}}"
    )
    for holder, name in (
        (config, "seed"),
        (config.slo, "p99"),
        (config.system, "name"),
        (config.system.params, "replicas"),
        (config.system.params.protocol.params, "mode"),
        (config.tune.search["seed"], "low"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(holder, name, 1)
    for mapping in (config.tune.search, config.system.params.delays):
        assert isinstance(mapping, FrozenMapping)
        with pytest.raises(TypeError, match="frozen"):
            mapping["more"] = 1
        with pytest.raises(TypeError, match="frozen"):
            mapping.update(more=1)
        with pytest.raises(TypeError, match="frozen"):
            mapping.pop("a", None)
    assert isinstance(config.system.params.steps, tuple)
    assert hash(config) == hash(load_mapping(resolved(config)))


def test_a_config_travels_between_processes() -> None:
    config = make("system.delays={a: 1ms}", "system.cache.name=toy_cache")
    assert pickle.loads(pickle.dumps(config)) == config


def test_the_hash_ignores_order_spelling_and_written_defaults() -> None:
    reordered = {key: dict(reversed(value.items())) for key, value in reversed(BASE.items())}
    search = {"arrival.rate": {"type": "float", "low": "1/ms", "high": "2/ms"}}
    respelled = {"arrival.rate": {"high": "2000/s", "low": "60000/min", "type": "float"}}
    assert config_hash(load_mapping(reordered)) == config_hash(make())
    assert config_hash(make("arrival.rate=2/ms", "duration=5000ms")) == config_hash(make())
    assert config_hash(make("seed=1", "system.delay=1000us")) == config_hash(make())
    assert config_hash(load_mapping({**BASE, "tune": {"search": search}})) == config_hash(
        load_mapping({**BASE, "tune": {"search": respelled}})
    )


@pytest.mark.parametrize(
    "change",
    [
        "seed=2",
        "runtime=sim",
        "experiment=x",
        "system.replicas=2",
        "system.cache.name=toy_cache",
        "system.delays={a: 0s}",
        "system.codes={a: 1}",
        "slo.p99=1ns",
        "tune.trials=25",
        "arrival.rate=2000.0000000000002/s",
    ],
)
def test_everything_counts_for_the_hash(change: str) -> None:
    assert config_hash(make(change)) != config_hash(make())


def test_the_hash_is_the_same_in_every_process() -> None:
    tests = str(Path(__file__).parent)
    program = (
        f"import sys; sys.path.insert(0, {tests!r})\n"
        "import conftest, config_toys as t\n"
        "from orchestrator.config.load import load_mapping\n"
        "from orchestrator.config.render import config_hash, render_yaml\n"
        "t.put_toys()\n"
        "c = load_mapping({**t.BASE, 'tune': {'search': t.SEARCH}},\n"
        "    'system.cache.name=toy_cache', 'system.delays={a: 1ms, b: 2ms, c: 3ms}')\n"
        "print(config_hash(c)); print(render_yaml(c))\n"
    )
    outputs = set()
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    digest = outputs.pop().splitlines()[0]
    assert len(digest) == 16 and int(digest, 16) >= 0


def test_the_resolved_config_spells_everything_out() -> None:
    data = resolved(make("system.cache.name=toy_cache"))
    assert data["system"] == {
        "name": "toy_store",
        "memory": "96MiB",
        "protocol": {"name": "toy_copy", "mode": "sync", "delay": "5ms"},
        "cache": {"name": "toy_cache", "size": 100},
        "replicas": 1,
        "bandwidth": None,
        "title": "",
        "level": None,
        "limits": {"most": 16, "shares": [0.5, 0.5], "strict": False},
        "steps": ["1ms", "2ms"],
        "delay": {"name": "constant", "value": "1ms"},
        "delays": {},
        "parts": [],
        "codes": {},
    }
    assert list(data) == [entry.name for entry in dataclasses.fields(Config)]
    assert json.loads(json.dumps(data)) == data


def test_the_rendered_yaml_loads_back(file: Path) -> None:
    config = load(file)
    file.write_text(render_yaml(config), encoding="utf-8")
    assert load(file) == config


DURATIONS = st.integers(0, 2**62).map(lambda ns: f"{ns}ns")
RATES = st.floats(1e-6, 1e12).map(lambda per_s: f"{per_s!r}/s")
# OmegaConf reads "???" as a missing value.
TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter("???".__ne__) | st.sampled_from(
    ["1e3", "null", "on", "~", "5ms", "${a}", "\\${a}", "\\\\${a}", "a\\", "${", "$", " x ", "'"]
)
LAWS = st.recursive(
    DURATIONS
    | DURATIONS.map(lambda value: {"name": "constant", "value": value})
    | DURATIONS.map(lambda mean: {"name": "exponential", "mean": mean})
    | st.lists(DURATIONS, min_size=1, max_size=3).map(
        lambda values: {"name": "empirical", "values": values}
    ),
    lambda inner: st.lists(
        st.tuples(st.floats(0.1, 5), inner.filter(lambda law: isinstance(law, dict))),
        min_size=1,
        max_size=2,
    ).map(
        lambda parts: {
            "name": "mixture",
            "parts": [{"weight": weight, **law} for weight, law in parts],
        }
    ),
    max_leaves=3,
)
SYSTEMS = st.fixed_dictionaries(
    {"name": st.just("toy_store"), "memory": st.integers(0, 2**60).map(lambda n: f"{n}B")},
    optional={
        "protocol": st.fixed_dictionaries(
            {"name": st.just("toy_copy")},
            optional={"mode": st.sampled_from(["sync", "async"]), "delay": DURATIONS},
        ),
        "cache": st.none()
        | st.just({"name": "toy_cache"})
        | st.integers(1, 10**9).map(lambda n: {"name": "toy_cache", "size": n})
        | st.integers(1, 10**9).map(lambda n: {"name": "toy_cache", "size": f"{n}B"}),
        "replicas": st.integers(1, 9),
        "bandwidth": st.none() | RATES.map(lambda text: text.replace("/", "kB/")),
        "steps": st.lists(DURATIONS, max_size=3),
        "delay": LAWS,
        "delays": st.dictionaries(st.text("ab.", min_size=1, max_size=3), LAWS, max_size=2),
        "codes": st.dictionaries(st.text("xyz", max_size=3), st.integers(), max_size=2),
    },
)


@settings(max_examples=40)
@given(SYSTEMS, TEXTS, st.integers(0, 2**63 - 1), RATES)
def test_every_config_loads_back_equal(
    data: dict[str, Any], title: str, seed: int, rate: str
) -> None:
    arrival = {"name": "toy_open", "rate": rate}
    config = load_mapping({**BASE, "system": data, "seed": seed, "arrival": arrival})
    # Set behind the loader, which would take "${...}" for an interpolation.
    params = dataclasses.replace(config.system.params, title=title)
    config = dataclasses.replace(config, system=dataclasses.replace(config.system, params=params))
    again = load_mapping(resolved(config))
    assert again == config
    assert resolved(again) == resolved(config)
    assert config_hash(again) == config_hash(config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(render_yaml(config), encoding="utf-8")
        assert load(path) == config


def test_a_plugin_is_described_by_its_params() -> None:
    rows = {row["name"]: row for row in describe(plugin(Family.SYSTEM, "toy_store"))}
    assert rows["memory"] == {
        "name": "memory",
        "type": "size",
        "default": None,
        "required": True,
        "help": "of all nodes",
    }
    assert rows["replicas"]["type"] == "integer, 1 to 9"
    assert rows["replicas"]["default"] == 1
    assert rows["bandwidth"]["type"] == "bandwidth or null"
    assert rows["protocol"]["type"] == "protocol plug-in"
    assert rows["protocol"]["default"] == {"name": "toy_copy"}
    assert rows["cache"]["type"] == "cache plug-in or null"
    assert rows["level"]["type"] == "one of strong, weak or null"
    assert rows["limits.most"]["default"] == 16
    assert rows["limits.shares"]["type"] == "list of number"
    assert rows["steps"]["default"] == ["1ms", "2ms"]
    assert rows["delays"]["type"] == "mapping of names to distribution plug-in"
    vote = {row["name"]: row for row in describe(plugin(Family.PROTOCOL, "toy_vote"))}
    assert vote["heartbeat"]["type"] == "duration, at least 1us"


def test_the_root_is_described_too() -> None:
    rows = {row["name"]: row for row in describe()}
    assert rows["seed"]["default"] == 1
    assert rows["duration"]["default"] == "5s"
    assert rows["slo.read.p99"] == {
        "name": "slo.read.p99",
        "type": "duration or null",
        "default": None,
        "required": False,
        "help": "",
    }
    assert rows["system"]["default"] == {"name": "replicated_store"}
    assert rows["tune.search"]["default"] == {}


@pytest.mark.parametrize("family", Family)
def test_every_plugin_can_be_described(family: Family) -> None:
    for each in registry.plugins(family).values():
        for row in describe(each):
            assert row["type"] and isinstance(row["help"], str)
            json.dumps(row)
