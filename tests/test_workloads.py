"""The ycsb workload and the laws of key choice."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy
import pytest
from scipy import stats

from orchestrator.config.load import load_mapping, parse_yaml
from orchestrator.core.keys import (
    KEY_LENGTH,
    KeyRange,
    KeySpace,
    NamedKeys,
    NumberedKeys,
    ZipfianChoice,
    zeta,
)
from orchestrator.core.load import OperationBlock
from orchestrator.core.machine import ADD, INCREMENT, OK, READ, SCAN, WRITE
from orchestrator.core.models import OPERATIONS
from orchestrator.core.parameters import ParameterError
from orchestrator.core.randomness import block_stream
from orchestrator.core.registry import Family, NoParams, Slot, plugins
from orchestrator.core.value_sizes import ConstantParams
from orchestrator.core.verdict import VALID
from orchestrator.keys.latest import LatestParams
from orchestrator.keys.uniform import Uniform
from orchestrator.plan import plan
from orchestrator.run import execute, judge
from orchestrator.workloads.ycsb import MIXES, Ycsb, YcsbParams

DRAWS = 200_000


def operations(
    count: int = DRAWS, *, client: int = 0, clients: int = 1, **given: Any
) -> OperationBlock:
    return Ycsb(YcsbParams(**given)).stream(7, client, clients).block(count)


def of_bytes(count: int) -> Slot:
    return Slot(Family.VALUE_SIZE, "constant", ConstantParams(count))


def assert_equal(one: OperationBlock, other: OperationBlock) -> None:
    for field in fields(OperationBlock):
        if field.name != "time_ns":
            numpy.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def assert_share(observed: int, expected: float, of: int = DRAWS) -> None:
    assert stats.binomtest(int(observed), of, expected).pvalue > 1e-4


# --- the contract -----------------------------------------------------------------------

# What a workload cannot do without, where its defaults are not enough to run it.
NEEDED: dict[str, dict[str, Any]] = {
    "trace": {"workload": {"path": "trace.csv"}, "arrival": {"name": "replay"}},
    "tenants": {"workload": {"tenants": {"a": {"share": 0.3}, "b": {"share": 0.7}}}},
    "transactions": {"system": {"transactions": {"name": "two_phase_commit"}}},
}
TRACE = "time,op,key,size\n" + "".join(f"{at * 7},{'rw'[at % 2]},{at % 5},64\n" for at in range(90))


@pytest.mark.parametrize("name", plugins(Family.WORKLOAD))
def test_a_workload_keeps_its_contract_and_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trace.csv").write_text(TRACE)
    needed = NEEDED.get(name, {})
    system = {"name": "replicated_store", "protocol": {"name": "raft"}, "replicas": 3}
    parts = plan(
        load_mapping(
            {"runtime": "sim", "arrival": {"name": "closed"}, "warmup": "0s", "duration": "200ms"}
            | needed
            | {"workload": {"name": name} | needed.get("workload", {})}
            | {"system": system | needed.get("system", {})}
        )
    )
    workload = parts.workload
    assert workload.model in OPERATIONS
    assert workload.payload_bytes is None or workload.payload_bytes >= 8
    assert workload.total is None or workload.total > 0
    whole, pieces = workload.stream(3, 0, 2), workload.stream(3, 0, 2)
    block = whole.block(40)
    assert len(block) == 40
    assert_equal(block, OperationBlock.concatenate([pieces.block(count) for count in (1, 24, 15)]))
    names = [workload.key_names[key] for key in block.key.tolist()]
    found = workload.preload().get(names[0])
    carried = workload.payload_bytes or int(block.size[0]) - len(names[0])
    assert found is None or len(found) == carried
    record = execute(parts)
    assert len(record.history) >= 90
    assert (record.history.outcome == OK).mean() > 0.9
    assert judge(parts, record).verdict == VALID


def test_the_guide_names_every_plugin_and_its_examples_run() -> None:
    guide = (Path(__file__).parent.parent / "docs" / "workloads.md").read_text("utf-8")
    families = (Family.WORKLOAD, Family.ARRIVAL, Family.KEYS, Family.VALUE_SIZE)
    names = [name for family in families for name in plugins(family)]
    assert [name for name in names if f"`{name}`" not in guide] == []
    examples = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    shortened = {"runtime": "sim", "warmup": "0s", "duration": "1s"}
    for text in examples:
        parts = plan(load_mapping(parse_yaml(text, "docs") | shortened))
        assert len(execute(parts).history) > 100
    assert len(examples) == 2


# --- the law of Zipf --------------------------------------------------------------------


# Constants of YCSB's generators (Cooper et al., SoCC 2010, and its source).
@pytest.mark.parametrize(("keys", "value"), [(1000, 7.728953217), (10000, 10.224361460)])
def test_zeta(keys: int, value: float) -> None:
    assert zeta(keys, 0.99) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("theta", [0.0, 0.5, 0.99, 1.0, 1.3, 3.0])
@pytest.mark.parametrize("keys", [1, 2, 7, 1000])
def test_zipfian_has_the_true_law(keys: int, theta: float) -> None:
    drawn = ZipfianChoice(keys, theta).draw(block_stream(1, f"{keys}/{theta}"), DRAWS)
    expected = DRAWS * numpy.arange(1, keys + 1) ** -theta / zeta(keys, theta)
    counts = numpy.bincount(drawn, minlength=keys)
    assert len(counts) == keys
    # The chi-square law needs a few expected draws a cell: the rare tail is one cell.
    common = expected >= 20
    cells = [*counts[common], counts[~common].sum()]
    wanted = [*expected[common], expected[~common].sum()]
    if wanted[-1] == 0:
        cells, wanted = cells[:-1], wanted[:-1]
    assert keys == 1 or stats.chisquare(cells, wanted).pvalue > 1e-3


@pytest.mark.parametrize("keys", [10_000, 5_000_000])
def test_zipfian_at_scale(keys: int) -> None:
    drawn = ZipfianChoice(keys, 0.99).draw(block_stream(1, "scale"), DRAWS)
    total = zeta(keys, 0.99)
    assert drawn.min() == 0
    assert drawn.max() < keys
    assert_share((drawn == 0).sum(), 1 / total)
    assert_share((drawn < 100).sum(), zeta(100, 0.99) / total)
    assert_share((drawn < keys // 10).sum(), zeta(keys // 10, 0.99) / total)


def test_uniform_is_uniform() -> None:
    drawn = Uniform(NoParams(), KeySpace(50)).draw(block_stream(1, "uniform"), DRAWS)
    assert stats.chisquare(numpy.bincount(drawn, minlength=50)).pvalue > 1e-3


# --- mixes ------------------------------------------------------------------------------


# Shares of reads, updates, inserts, scans and read-modify-writes (Cooper et al., table 2).
PUBLISHED = {
    "a": (0.5, 0.5, 0, 0, 0),
    "b": (0.95, 0.05, 0, 0, 0),
    "c": (1, 0, 0, 0, 0),
    "d": (0.95, 0, 0.05, 0, 0),
    "e": (0, 0, 0.05, 0.95, 0),
    "f": (0.5, 0, 0, 0, 0.5),
}


@pytest.mark.parametrize("mix", PUBLISHED)
def test_published_proportions(mix: str) -> None:
    block = operations(mix=mix, keys=1000)
    writes = block.kind == WRITE
    inserts = writes & (block.key >= 1000)
    reads = block.kind == READ
    observed = (
        (reads & (block.follow_up == READ)).sum(),
        (writes & ~inserts).sum(),
        inserts.sum(),
        (block.kind == SCAN).sum(),
        (reads & (block.follow_up == WRITE)).sum(),
    )
    assert sum(observed) == DRAWS
    for count, share in zip(observed, PUBLISHED[mix], strict=True):
        assert_share(count, share)


def test_every_mix_is_published() -> None:
    assert sorted(MIXES) == sorted(PUBLISHED)


@pytest.mark.parametrize("mix", ["a", "b", "c", "e", "f"])
def test_top_key_has_its_zipfian_share(mix: str) -> None:
    block = operations(mix=mix, keys=1000)
    chosen = block.key[block.key < 1000]
    assert_share((chosen == 0).sum(), 1 / 7.728953217, len(chosen))


def test_distribution_can_be_chosen() -> None:
    chosen = Slot(Family.KEYS, "uniform", NoParams())
    uniform = operations(mix="c", keys=1000, distribution=chosen).key
    assert_share((uniform == 0).sum(), 1 / 1000)
    chosen = Slot(Family.KEYS, "latest", LatestParams(None))
    latest = operations(mix="c", keys=1000, distribution=chosen).key
    assert_share((latest == 999).sum(), 1 / 7.728953217)


def test_scan_lengths_are_uniform() -> None:
    block = operations(mix="e", keys=1000, scan_length_max=10)
    scans = block.kind == SCAN
    lengths = numpy.bincount(block.count[scans], minlength=11)
    assert lengths[0] == 0
    assert stats.chisquare(lengths[1:]).pvalue > 1e-3
    assert (block.count[~scans] == 1).all()


def test_sizes_are_key_and_value() -> None:
    assert set(operations(100, value_size=of_bytes(512)).size.tolist()) == {KEY_LENGTH + 512}


@pytest.mark.parametrize(
    ("update", "kind", "model"),
    [("write", WRITE, "register"), ("increment", INCREMENT, "counter"), ("add", ADD, "set")],
)
def test_updates_may_drive_counters_and_sets(update: str, kind: int, model: str) -> None:
    for mix in ("a", "d"):
        drawn = operations(1000, mix=mix, update=update)
        written = operations(1000, mix=mix)
        numpy.testing.assert_array_equal(drawn.kind == kind, written.kind == WRITE)
        numpy.testing.assert_array_equal(drawn.key, written.key)
    assert Ycsb(YcsbParams(update=update)).model == model


@pytest.mark.parametrize("mix", ["e", "f"])
def test_only_values_are_scanned_or_written_back(mix: str) -> None:
    with pytest.raises(ParameterError, match="only values allow"):
        YcsbParams(mix=mix, update="increment")


@pytest.mark.parametrize("value_size", [0, 7, 2**31])
def test_a_value_must_hold_its_identity_and_fit(value_size: int) -> None:
    with pytest.raises(ParameterError, match=str(value_size)):
        YcsbParams(value_size=of_bytes(value_size))


# --- inserts and latest -----------------------------------------------------------------


@pytest.mark.parametrize("mix", ["d", "e"])
def test_inserts_are_new_on_every_client(mix: str) -> None:
    inserted = []
    for client in range(3):
        block = operations(20_000, client=client, clients=3, mix=mix, keys=500)
        mine = block.key[block.kind == WRITE]
        numpy.testing.assert_array_equal(mine, 500 + client + 3 * numpy.arange(len(mine)))
        inserted.append(mine)
    together = numpy.concatenate(inserted)
    assert len(numpy.unique(together)) == len(together)


def test_latest_counts_back_from_the_newest_known_key() -> None:
    keys, client, clients = 1000, 1, 2
    block = operations(client=client, clients=clients, mix="d", keys=keys)
    known = list(range(keys))
    distances = []
    position = {key: key for key in known}
    for kind, key in zip(block.kind.tolist(), block.key.tolist(), strict=True):
        if kind == WRITE:
            position[key] = len(known)
            known.append(key)
        else:
            distances.append(len(known) - 1 - position[key])
    observed = numpy.bincount(distances, minlength=keys)
    expected = len(distances) * numpy.arange(1, keys + 1) ** -0.99 / zeta(keys, 0.99)
    assert len(observed) == keys
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3
    assert observed[0] > observed[1] > observed[10] > observed[100]


# --- determinism ------------------------------------------------------------------------


@pytest.mark.parametrize("mix", MIXES)
def test_blocks_may_be_cut_anywhere(mix: str) -> None:
    workload = Ycsb(YcsbParams(mix=mix, keys=1000))
    whole = workload.stream(3, 0, 2).block(30_000)
    stream = workload.stream(3, 0, 2)
    parts = [stream.block(count) for count in (10, 20, 0, 1, 8161, 8192, 13_616)]
    assert [len(part) for part in parts] == [10, 20, 0, 1, 8161, 8192, 13_616]
    assert_equal(OperationBlock.concatenate(parts), whole)


def test_clients_and_seeds_differ() -> None:
    workload = Ycsb(YcsbParams())
    first = workload.stream(1, 0, 2).block(1000).key
    assert (first != workload.stream(1, 1, 2).block(1000).key).any()
    assert (first != workload.stream(2, 0, 2).block(1000).key).any()


_DIGEST = """
import hashlib
from orchestrator.workloads.ycsb import Ycsb, YcsbParams
block = Ycsb(YcsbParams(mix="d", keys=1000)).stream(11, 1, 3).block(20_000)
print(hashlib.sha256(block.kind.tobytes() + block.key.tobytes()).hexdigest())
"""


def test_same_seed_same_operations_in_every_process() -> None:
    block = Ycsb(YcsbParams(mix="d", keys=1000)).stream(11, 1, 3).block(20_000)
    here = hashlib.sha256(block.kind.tobytes() + block.key.tobytes()).hexdigest()
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    there = subprocess.run(
        [sys.executable, "-c", _DIGEST], env=environment, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == here


# --- keys and preload -------------------------------------------------------------------


def test_key_names_cover_inserts() -> None:
    names = Ycsb(YcsbParams(keys=100)).key_names
    assert len(names) == 100
    assert names[0] == b"user000000000000"
    assert names[123_456] == b"user000000123456"
    assert names[1:3] == [b"user000000000001", b"user000000000002"]
    assert list(names) == sorted(names)
    assert list(pickle.loads(pickle.dumps(names))) == list(names)
    with pytest.raises(IndexError):
        names[-1]


def test_preload_has_exactly_its_keys() -> None:
    workload = Ycsb(YcsbParams(keys=100, value_size=of_bytes(20)))
    preload = workload.preload()
    names = workload.key_names
    assert workload.payload_bytes == 20
    for index in (0, 1, 50, 99):
        assert preload.get(names[index]) == bytes(20)
    strangers = [
        names[100],
        names[1000],
        b"",
        b"user",
        b"user00000000001",
        b"user0000000000010",
        b"user00000000000a",
        b"user00000000 001",
        b"user-00000000001",
        b"User000000000001",
        b"aser000000000001",
        b"0000000000000001",
    ]
    assert [key for key in strangers if preload.get(key) is not None] == []


@pytest.mark.parametrize(
    ("start", "first"),
    [
        (b"", 0),
        (b"user000000000007", 7),
        (b"user000000000007x", 8),
        (b"user00000000001", 10),
        (b"user000000000019", 19),
        (b"user000000000020", 20),
        (b"zebra", 20),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_keys_from_goes_on_in_key_order(start: bytes, first: int, named: bool) -> None:
    names = list(NumberedKeys(20))
    preload = NamedKeys(reversed(names), 8) if named else KeyRange(20, 8)
    assert list(preload.keys_from(start, 5)) == names[first : first + 5]
    assert list(preload.keys_from(start, 0)) == []


def test_named_keys_have_exactly_their_keys() -> None:
    preload = NamedKeys([b"b", b"a"], 8)
    assert preload.get(b"a") == bytes(8)
    assert preload.get(b"c") is None
