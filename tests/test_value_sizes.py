"""Sizes of values: laws, and that what is stored, carried, sent and cached follows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import pytest
from scipy import stats

from orchestrator.config.load import load_mapping, override
from orchestrator.config.render import resolved
from orchestrator.config.search import axes
from orchestrator.core.history import VALUE_ID_BYTES
from orchestrator.core.keys import KEY_LENGTH
from orchestrator.core.load import ChunkedStream
from orchestrator.core.machine import WRITE
from orchestrator.core.value_sizes import KeySizes, key_share
from orchestrator.core.waiting import Tie
from orchestrator.errors import ConfigError, InfeasibleError
from orchestrator.plan import plan
from orchestrator.run import execute
from orchestrator.runtimes._batching import Attempt
from orchestrator.runtimes._client_parts import make_driver
from orchestrator.runtimes._port import Leg
from orchestrator.runtimes._session import Session
from orchestrator.runtimes._virtual_clock import VirtualClock
from orchestrator.workloads.ycsb import Ycsb

LAWS: dict[str, dict[str, Any]] = {
    "constant": {"value": "64B"},
    "uniform": {"least": "10B", "most": "29B"},
    "pareto": {"least": "100B", "most": "100KiB", "shape": 1.2},
    "lognormal": {"median": "300B", "p99": "4KiB"},
    "zipfian": {"most": "1000B"},
    "histogram": {"bins": [{"size": "8B", "weight": 3}, {"size": "1KiB"}]},
}
KEYS = numpy.arange(200_000)


def sizes_of(value_size: object) -> KeySizes:
    given = {"name": "ycsb", "value_size": value_size}
    return KeySizes(load_mapping({"workload": given}).workload.params.value_size)


def drawn(name: str) -> Any:
    return sizes_of({"name": name} | LAWS[name]).of(KEYS)


def test_keys_are_spread_evenly_and_independently() -> None:
    share = key_share(KEYS)
    assert share.min() > 0
    assert share.max() < 1
    assert stats.kstest(share, "uniform").pvalue > 1e-3
    assert stats.spearmanr(share[:-1], share[1:]).pvalue > 1e-3
    # SplitMix64 from seed 0: its first outputs, so that key 0 is no exception.
    first = (key_share(numpy.arange(2)) * 2**52).astype(numpy.int64)
    assert first.tolist() == [0xE220A8397B1DCDAF >> 12, 0x6E789E6AA1B965F4 >> 12]


def test_sizes_have_their_laws() -> None:
    assert set(drawn("constant").tolist()) == {64}
    uniform = numpy.bincount(drawn("uniform"))
    assert stats.chisquare(uniform[10:30]).pvalue > 1e-3
    assert (len(uniform), uniform[:10].sum()) == (30, 0)
    histogram = drawn("histogram")
    assert stats.binomtest(int((histogram == 8).sum()), len(KEYS), 0.75).pvalue > 1e-3
    assert set(histogram.tolist()) == {8, 1024}
    lognormal = drawn("lognormal")
    assert stats.binomtest(int((lognormal <= 300).sum()), len(KEYS), 0.5).pvalue > 1e-4
    assert stats.binomtest(int((lognormal > 4096).sum()), len(KEYS), 0.01).pvalue > 1e-4
    zipfian = numpy.bincount(drawn("zipfian"), minlength=1001)[8:]
    expected = numpy.arange(1, 994) ** -0.99
    expected *= len(KEYS) / expected.sum()
    assert stats.chisquare(zipfian, expected * zipfian.sum() / expected.sum()).pvalue > 1e-3
    pareto = drawn("pareto")
    # P(X > x) of the bounded law (Harchol-Balter, Crovella and Murta 1999, section 2).
    for x in (200, 1000, 10_000):
        tail = ((100 / x) ** 1.2 - (100 / 102_400) ** 1.2) / (1 - (100 / 102_400) ** 1.2)
        assert (pareto > x).mean() == pytest.approx(tail, rel=0.1, abs=3e-4)
    assert pareto.min() >= 100
    assert pareto.max() <= 102_400


class Wire:
    """Takes what is sent and answers nothing."""

    clock = VirtualClock(0)

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, bytes | None]] = []

    def submit(self, session: Session, node: int) -> bool:
        self.sent.append((session.key, session.op.size, session.op.value))
        return True

    def submit_tied(self, session: Session, node: int, tie: Tie) -> bool:
        return self.submit(session, node)

    def submit_sampled(self, session: Session, node: int, tie: Tie | None, leg: Leg) -> bool:
        return self.submit(session, node)

    def reaches(self, node: int) -> bool:
        return True

    def carry(self, node: int, attempts: Sequence[Attempt]) -> bool:
        return all(self.submit(session, node) for session, *_ in attempts)

    def ask(self, node: int) -> None:
        """Nobody is asked."""

    def wake_at(self, when_ns: int) -> None:
        """Nobody waits."""


@pytest.mark.parametrize("name", LAWS)
def test_what_is_preloaded_written_and_weighed_has_the_keys_size(name: str) -> None:
    config = load_mapping(
        {
            "runtime": "sim",
            "workload": {
                "name": "ycsb",
                "mix": "a",
                "inserts": 0.1,
                "keys": 50,
                "value_size": {"name": name} | LAWS[name],
            },
            "arrival": {"name": "constant", "rate": "10000/s"},
            "warmup": "0s",
            "duration": "100ms",
        }
    )
    parts = plan(config)
    sizes, names = KeySizes(config.workload.params.value_size), parts.workload.key_names
    block = parts.workload.stream(1, 0, 1).block(500)
    numpy.testing.assert_array_equal(block.size, KEY_LENGTH + sizes.of(block.key))
    preload = parts.workload.preload()
    found = [len(preload.get(names[key]) or b"") for key in range(50) for _ in range(2)]
    assert found == numpy.repeat(sizes.of(numpy.arange(50)), 2).tolist()
    assert preload.get(names[50]) is None

    wire = Wire()
    make_driver(parts, 0, wire).poll(99_000_000)
    written = [(key, size, value) for key, size, value in wire.sent if value is not None]
    assert 300 < len(written) < 800
    assert len({value[:VALUE_ID_BYTES] for _, _, value in written if value}) == len(written)
    keys = numpy.array([key for key, _, _ in written])
    assert [len(value or b"") for _, _, value in written] == sizes.of(keys).tolist()
    assert [size - KEY_LENGTH for _, size, _ in written] == sizes.of(keys).tolist()


def test_read_modify_writes_and_runs_keep_sizes() -> None:
    given = {
        "runtime": "sim",
        "workload": {"name": "ycsb", "mix": "f", "keys": 20, "value_size": {"name": "uniform"}},
        "warmup": "0s",
        "duration": "100ms",
    }
    given["workload"]["value_size"]["most"] = "500B"  # type: ignore[index]
    parts = plan(load_mapping(given))
    history = execute(parts).history
    sizes = KeySizes(parts.config.workload.params.value_size)
    assert (history.kind == WRITE).sum() > 100
    numpy.testing.assert_array_equal(history.size, KEY_LENGTH + sizes.of(history.key))


def test_keys_that_move_take_their_sizes_along() -> None:
    moving = {"name": "hotspot", "moves_every": "1s"}
    law = {"name": "uniform", "most": "99B"}
    given = {"name": "ycsb", "keys": 50, "distribution": moving, "value_size": law}
    params = load_mapping({"workload": given}).workload.params
    stream = Ycsb(params).stream(1, 0, 1)
    assert isinstance(stream, ChunkedStream)
    block = stream.block(1000)
    moved = stream.at(block, numpy.arange(1000) * 10_000_000)
    assert (moved.key != block.key).any()
    numpy.testing.assert_array_equal(
        moved.size, KEY_LENGTH + KeySizes(params.value_size).of(moved.key)
    )


def test_the_caches_limit_counts_mean_entries() -> None:
    def planned(most: str) -> object:
        given = {
            "system": {"cache": {"name": "lru", "size": 1000}, "replicas": 1, "memory": "200KiB"}
        }
        law = {"name": "uniform", "least": "8B", "most": most}
        return plan(load_mapping(given | {"workload": {"name": "ycsb", "value_size": law}}))

    assert planned("300B")
    with pytest.raises(InfeasibleError):
        planned("600B")


def test_a_size_alone_is_constant_and_paths_lead_into_it() -> None:
    bare = load_mapping({"workload": {"value_size": "1KiB"}})
    assert bare.workload.params.value_size.params.value == 1024
    assert load_mapping({}) == load_mapping({"workload": {"value_size": "100B"}})
    assert load_mapping(resolved(bare)) == bare
    law = override(bare, {"workload.value_size": {"name": "uniform", "most": "2KiB"}})
    assert override(
        law, {"workload.value_size.least": "1KiB"}
    ).workload.params.value_size.params.least
    search = {"workload.value_size": {"type": "int", "low": "10B", "high": "1KiB"}}
    (axis,) = axes(load_mapping({"tune": {"search": search}}))
    assert (axis.low, axis.high, axis.value(512)) == (10, 1024, "512B")


@pytest.mark.parametrize(
    ("value_size", "path", "message"),
    [
        ("7B", "", "a value's identity"),
        ("2GiB", "", "a value's identity"),
        ("-1B", "", "-1B"),
        ({"name": "uniform", "least": "1B", "most": "9B"}, "", "1B must be 8B"),
        ({"name": "uniform", "least": "10B", "most": "9B"}, ".most", "below least"),
        ({"name": "uniform"}, ".most", "required"),
        ({"name": "pareto", "least": "0B", "most": "9B"}, "", "0B must be 8B"),
        ({"name": "lognormal", "median": "9B", "p99": "9B"}, ".p99", "above median"),
        ({"name": "lognormal", "median": "7B", "p99": "9B"}, ".median", "a value's identity"),
        ({"name": "lognormal", "median": "2MiB", "p99": "4MiB"}, ".most", "1MiB is below p99"),
        ({"name": "zipfian", "most": "2MiB"}, ".most", "too many for a table"),
        ({"name": "histogram"}, ".bins", "at least one bin"),
        ({"name": "histogram", "bins": [{"size": "9B", "weight": 0}]}, ".bins", "above 0"),
        ({"name": "histogram", "bins": [{"size": "9B", "weight": -1}]}, "", "out of bounds"),
        ({"name": "paretto", "most": "9B"}, ".name", "unknown value_size"),
    ],
)
def test_what_no_value_can_be_is_refused(value_size: object, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_mapping({"workload": {"name": "ycsb", "value_size": value_size}})
    assert str(caught.value.path).startswith("workload.value_size" + path)
