"""Every refusal of the configuration layer: its path, its words, its suggestion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from config_toys import YAML, make, put_toys, refused, remove_toys
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.load import load, load_mapping
from orchestrator.config.render import resolved
from orchestrator.errors import ConfigError, InputError


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


REFUSED: list[tuple[str, str, str, str]] = [
    # override, path, message, hint
    ("sytem.replicas=3", "sytem", "unknown key 'sytem'", "did you mean 'system'?"),
    ("system.replica=3", "system.replica", "unknown key 'replica' of system 'toy_store'", "repl"),
    ("system={name: toy_store, memry: 1B}", "system.memry", "unknown key 'memry'", "'memory'?"),
    ("slo.read.p98=5ms", "slo.read.p98", "unknown key 'p98'", "did you mean"),
    ("slo={read: {p98: 5ms}}", "slo.read.p98", "unknown key 'p98'", "did you mean"),
    ("system.memory=5ms", "system.memory", "'5ms' has no unit of size", ""),
    ("slo.p99=20", "slo.p99", "20 has no unit of time; use one of ns, us, ms", ""),
    ("arrival.rate=500", "arrival.rate", "500 is not a rate", ""),
    ("system.bandwidth=5MiB", "system.bandwidth", "'5MiB' is not a bandwidth", ""),
    ("system.replicas=0", "system.replicas", "0 is out of bounds", "allowed: 1 to 9"),
    ("system.replicas=10", "system.replicas", "10 is out of bounds", "allowed: 1 to 9"),
    ("workload.keys=0", "workload.keys", "0 is out of bounds", "allowed: at least 1"),
    ("seed=-1", "seed", "-1 is out of bounds", "allowed: 0 to 9223372036854775807"),
    ("slo.error_rate=.nan", "slo.error_rate", "expected a finite number, got nan", ""),
    ("duration=0s", "duration", "'0s' is out of bounds", "allowed: at least 1ms"),
    ("client.timeout=1ns", "client.timeout", "'1ns' is out of bounds", "at least 1us"),
    ("system.replicas=many", "system.replicas", "expected a whole number, got 'many'", "1 to 9"),
    ("system.replicas=1.5", "system.replicas", "expected a whole number, got 1.5", "1 to 9"),
    ("system.replicas=true", "system.replicas", "expected a whole number, got true", "1 to 9"),
    ("system.replicas=[3]", "system.replicas", "expected a whole number, got [3]", "1 to 9"),
    ("slo.error_rate=true", "slo.error_rate", "expected a number, got true", "0.0 to 1.0"),
    ("client.sticky=7", "client.sticky", "expected true or false, got 7", ""),
    ("client.sticky=perhaps", "client.sticky", "expected true or false, got 'perhaps'", ""),
    ("system.title=true", "system.title", "expected a text, got true", "put it in quotes"),
    ("system.title={a: 1}", "system.title", "expected a text, got {'a': 1}", ""),
    ("runtime=rai", "runtime", "unknown value 'rai'", "did you mean 'ray'?"),
    ("runtime=true", "runtime", "expected a text, got true", "allowed: ray, sim"),
    ("check.level=odd", "check.level", "unknown value 'odd'", "allowed: auto, strict"),
    ("system.replicas=null", "system.replicas", "null is not allowed here", ""),
    ("system.delay=null", "system.delay", "null is not allowed here", ""),
    ("slo=null", "slo", "null is not allowed here", ""),
    ("seed=", "seed", "null is not allowed here", ""),
    ("slo=5", "slo", "5 is no mapping of keys to values", ""),
    ("slo={5: 1ms}", "slo.5", "unknown key 5", "allowed: p50"),
    ("system.steps=3ms", "system.steps", "'3ms' is no list", "write it in [...]"),
    ("system.steps=[3ms, 4]", "system.steps[1]", "4 has no unit of time", ""),
    ("system.codes={a: x}", "system.codes.a", "expected a whole number, got 'x'", ""),
    ("system.codes={5: 1}", "system.codes", "the key 5 is no text", "quotes"),
    ("system.limits.shares=[1, 1]", "system.limits.shares", "the shares must add up to 1", ""),
    ("system.protocol.name=toy_vot", "system.protocol.name", "unknown protocol", "'toy_vote'?"),
    ("system.protocol.name=5", "system.protocol.name", "expected a name, got 5", ""),
    ("system.protocol=toy_vote", "system.protocol", "'toy_vote' is no protocol", "{name: toy_v"),
    ("system.delay=exponential", "system.delay", "'exponential' is no dist", "{name: exponential"),
    ("system.delay=5MB", "system.delay", "'5MB' has no unit of time", ""),
    ("system.delay=[1ms]", "system.delay", "['1ms'] is no distribution", "{name: ..."),
    ("system.delay={name: exponential}", "system.delay.mean", "required by distribution", ""),
    ("system.delay.mean=1ms", "system.delay.mean", "unknown key 'mean' of distribution", "value"),
    ("system.cache.size=5", "system.cache.name", "a cache needs a name", "toy_cache"),
    ("system.parts=[{name: constant, value: 1s}]", "system.parts[0].weight", "required", "how m"),
    ("system.parts=[1ms]", "system.parts[0]", "'1ms' is no distribution", ""),
    ("system.parts[0].weight=1", "system.parts", "no item '0'", "the list has 0"),
    ("system.delays={a: {name: constant}}", "system.delays.a.value", "required", ""),
    ("system={name: toy_store}", "system.memory", "required by system 'toy_store'", "of all nodes"),
    ("arrival={name: toy_open}", "arrival.rate", "required by arrival 'toy_open'", ""),
    ("seed.more=1", "seed.more", "seed is a single value", "nothing can be set below"),
    ("experiment=a/b", "experiment", "'a/b' cannot name results", ""),
    ("experiment=.hidden", "experiment", "'.hidden' cannot name results", ""),
    ("experiment=''", "experiment", "'' cannot name results", ""),
    ("experiment='a\n'", "experiment", "cannot name results", ""),
    ("tune.objectives=[]", "tune.objectives", "at least one objective", ""),
    ("tune.objectives[3].metric=x", "tune.objectives", "no item '3'", "the list has 1"),
    ("warmup=${durration}", "warmup", "Interpolation key 'durration' not found", ""),
    ("warmup=${warmup}", "warmup", "Recursive interpolation", ""),
    ("warmup=???", "warmup", "Missing mandatory value", ""),
    ("seed", "", "malformed override 'seed'", "write path=value"),
    ("=5", "", "malformed override '=5'", "write path=value"),
    ("a..b=5", "a..b", "malformed path 'a..b'", "joined by dots"),
    ("a.=5", "a.", "malformed path 'a.'", ""),
    ("a[0=5", "a[0", "malformed path 'a[0'", ""),
    ("[0]=5", "[0]", "malformed path '[0]'", ""),
    ("seed=[1", "seed", "malformed override 'seed=[1'", "read as YAML"),
    ("seed={a: 1, a: 2}", "seed", "found duplicate key a", "read as YAML"),
    ("seed=!!python/name:os.system x", "seed", "could not determine a constructor", ""),
]


@pytest.mark.parametrize(
    ("setting", "path", "message", "hint"), REFUSED, ids=[r[0] for r in REFUSED]
)
def test_a_wrong_value_is_refused_with_its_path(
    setting: str, path: str, message: str, hint: str
) -> None:
    error = refused(setting)
    assert (error.path or "") == path
    assert message in error.message
    assert hint in (error.hint or "")


SEARCH_REFUSED: list[tuple[str, str, str, str]] = [
    # path, range, path of the refusal below tune.search, message
    ("arrival.rte", "{type: int, low: 1, high: 2}", "arrival.rte", "unknown key 'rte'"),
    ("slo.p98", "{type: int, low: 1s, high: 2s}", "slo.p98", "unknown key 'p98'"),
    ("tune.trials", "{type: int, low: 1, high: 2}", "tune.trials", "cannot be searched"),
    ("experiment", "{type: categorical, choices: [a]}", "experiment", "cannot be searched"),
    ("slo", "{type: int, low: 1, high: 2}", "slo", "is no single value"),
    ("system", "{type: categorical, choices: [null]}", "system.choices[0]", "null is not allowed"),
    (
        "workload",
        "{type: categorical, choices: [{name: toy_load, kays: 3}]}",
        "workload.choices[0].kays",
        "unknown key 'kays'",
    ),
    ("arrival.rate", "{type: float, low: 500, high: 1/s}", "arrival.rate.low", "is not a rate"),
    ("arrival.rate", "{type: float, low: 5/s, high: 1/s}", "arrival.rate.high", "is below low"),
    ("arrival.rate", "{type: int, low: 0.5/s, high: 1/s}", "arrival.rate.low", "no whole number"),
    ("arrival.rate", "{type: int, low: 1/s}", "arrival.rate.high", "needs low and high"),
    ("arrival.rate", "{type: real, low: 1/s}", "arrival.rate.type", "unknown value 'real'"),
    ("arrival.rate", "{low: 1/s, high: 2/s}", "arrival.rate.type", "required"),
    ("system.replicas", "{type: int, low: 0, high: 3}", "system.replicas.low", "out of bounds"),
    ("system.replicas", "{type: float, low: 1, high: 3}", "system.replicas.type", "whole number"),
    ("system.replicas", "{type: int, low: 1, high: 3, step: 0}", "system.replicas.step", "no step"),
    (
        "system.replicas",
        "{type: int, low: 1, high: 3, step: 1, log: true}",
        "system.replicas.step",
        "a logarithmic range has no step",
    ),
    (
        "system.replicas",
        "{type: int, low: 1, high: 3, choices: [1]}",
        "system.replicas.choices",
        "choices belong to type categorical",
    ),
    ("system.replicas", "{type: categorical}", "system.replicas.choices", "needs choices"),
    (
        "system.replicas",
        "{type: categorical, choices: [1, 30]}",
        "system.replicas.choices[1]",
        "30 is out of bounds",
    ),
    (
        "system.replicas",
        "{type: categorical, choices: [null]}",
        "system.replicas.choices[0]",
        "null is not allowed",
    ),
    (
        "system.replicas",
        "{type: categorical, choices: [1], low: 1}",
        "system.replicas.low",
        "has choices, no bounds",
    ),
    (
        "system.protocol.name",
        "{type: categorical, choices: [toy_vte]}",
        "system.protocol.name.choices[0]",
        "unknown protocol 'toy_vte'",
    ),
    ("system.protocol.name", "{type: int, low: 1, high: 2}", "system.protocol.name.type", "fit"),
    ("client.sticky", "{type: int, low: 0, high: 1}", "client.sticky.type", "does not fit"),
    (
        "system.cache.size",
        "{type: int, low: 10, high: 1MiB}",
        "system.cache.size",
        "both be entries or both be bytes",
    ),
    ("warmup", "{type: int, low: 0s, high: 1s, log: true}", "warmup.low", "starts above 0"),
]


@pytest.mark.parametrize(("path", "searched", "place", "message"), SEARCH_REFUSED)
def test_a_wrong_search_space_is_refused_with_its_path(
    path: str, searched: str, place: str, message: str
) -> None:
    error = refused(f"tune.search={{{path}: {searched}}}")
    assert error.path == f"tune.search.{place}"
    assert message in error.message


def test_bad_yaml_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("seed: 1\nsystem: [1\nslo: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert raised.value.path == f"{path}:3"
    assert raised.value.message.startswith("bad YAML: ")


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"seed: 1\nseed: 2\n", ":2", "duplicate key seed"),
        (b"a: !!python/object/apply:os.getcwd []\n", ":1", "could not determine a constructor"),
        (b"- 1\n- 2\n", "", "no mapping"),
        (b"5\n", "", "no mapping"),
        (b"a: \xff\n", "", "not UTF-8"),
        (b"a: \x01\n", "", "character"),
        (b"null: 1\n", "", "Incompatible key type"),
    ],
)
def test_a_file_that_is_no_config_is_refused(
    tmp_path: Path, content: bytes, line: str, message: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert raised.value.path == f"{path}{line}"
    assert message in raised.value.message


def test_a_file_of_one_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("just a text\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no mapping of keys") as raised:
        load(path)
    assert raised.value.path == str(path)
    path.write_text("just:\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown key 'just'"):
        load(path)


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"system\.memory: required"):
        load(path, "system.name=toy_store")


def test_a_missing_file_is_refused_with_a_near_one(file: Path) -> None:
    with pytest.raises(InputError) as raised:
        load(file.with_name("vk.yaml"))
    assert raised.value.path == str(file.with_name("vk.yaml"))
    assert raised.value.hint == "did you mean 'kv.yaml'?"
    with pytest.raises(InputError, match="no such file"):
        load(file.parent / "nowhere" / "kv.yaml")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        load(tmp_path)
    assert raised.value.path == str(tmp_path)


@settings(max_examples=100)
@given(
    st.sampled_from([case[0].partition("=")[0] for case in REFUSED]) | st.text("abs.[]=0"),
    st.text("ab0:{}[],${}'\"\\- \n!&*?|%@`", max_size=12),
)
def test_any_override_gives_a_config_or_an_input_error(path: str, value: str) -> None:
    try:
        config = make(f"{path}={value}")
    except InputError as error:
        assert str(error)
    else:
        assert load_mapping(resolved(config)) == config
