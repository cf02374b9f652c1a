"""Choices of keys: each against its law, in time, and as configurations write them."""

from __future__ import annotations

import numpy
import pytest
from numpy.typing import NDArray
from scipy import stats

from orchestrator.config.load import load_mapping, override
from orchestrator.config.render import resolved
from orchestrator.config.search import axes
from orchestrator.core.keys import KeyChoice, KeySpace, zeta
from orchestrator.core.load import ChunkedStream
from orchestrator.core.machine import WRITE
from orchestrator.core.randomness import block_stream
from orchestrator.core.registry import Family, plugins
from orchestrator.errors import ConfigError
from orchestrator.keys.ycsb_scrambled import ITEMS, THETA, ZETA, fnv_hash
from orchestrator.plan import plan
from orchestrator.run import execute
from orchestrator.workloads.ycsb import Ycsb

DRAWS = 100_000
MS = 1_000_000


def workload_of(distribution: object, **given: object) -> Ycsb:
    """A ycsb workload as a configuration describes it."""
    described = {"name": "ycsb", "keys": 1000, "distribution": distribution} | given
    made: Ycsb = Ycsb(load_mapping({"workload": described}).workload.params)
    return made


def choice_of(distribution: object, space: KeySpace, **given: object) -> KeyChoice:
    params = load_mapping(
        {"workload": {"name": "ycsb", "keys": space.keys, "distribution": distribution} | given}
    ).workload.params
    made: KeyChoice = params.choice_of(space)
    return made


def drawn(distribution: object, keys: int, **given: object) -> NDArray[numpy.int64]:
    space = KeySpace(keys, float(given.get("theta", 0.99)))  # type: ignore[arg-type]
    key = choice_of(distribution, space, **given).draw(block_stream(1, "draw"), DRAWS)
    assert key.min() >= 0
    assert key.max() < keys
    return key


def assert_law(key: NDArray[numpy.int64], shares: NDArray[numpy.float64]) -> None:
    counts = numpy.bincount(key, minlength=len(shares))
    expected = shares * len(key)
    common = expected >= 20  # chi-square needs a few expected draws a cell
    cells, wanted = counts[common], expected[common]
    if not common.all():
        cells = numpy.append(cells, counts[~common].sum())
        wanted = numpy.append(wanted, expected[~common].sum())
    assert stats.chisquare(cells, wanted * cells.sum() / wanted.sum()).pvalue > 1e-4


def zipf(keys: int, theta: float) -> NDArray[numpy.float64]:
    ranks = numpy.arange(1, keys + 1, dtype=numpy.float64)
    return ranks**-theta / zeta(keys, theta)


# --- laws -------------------------------------------------------------------------------


def test_a_skew_of_its_own_goes_before_the_workloads() -> None:
    assert_law(drawn("zipfian", 500), zipf(500, 0.99))
    assert_law(drawn("zipfian", 500, theta=0.5), zipf(500, 0.5))
    assert_law(drawn({"name": "zipfian", "theta": 1.4}, 500, theta=0.5), zipf(500, 1.4))
    assert_law(drawn({"name": "latest", "theta": 0.2}, 500), zipf(500, 0.2))
    assert_law(drawn("uniform", 500), numpy.full(500, 1 / 500))


def test_hotspot_has_its_shares() -> None:
    key = drawn({"name": "hotspot", "keys_share": 0.1, "operations_share": 0.7}, 200)
    assert_law(key, numpy.array([0.7 / 20] * 20 + [0.3 / 180] * 180))
    # The defaults of YCSB's HotspotIntegerGenerator workload: 80 % on 20 %.
    assert_law(drawn("hotspot", 50), numpy.array([0.8 / 10] * 10 + [0.2 / 40] * 40))


def test_sequential_clients_take_turns() -> None:
    parts = [choice_of("sequential", KeySpace(10, client=client, clients=3)) for client in range(3)]
    chance = block_stream(1, "none")
    turns = [numpy.concatenate([part.draw(chance, n) for n in (3, 4, 1)]) for part in parts]
    assert numpy.array(turns).T.ravel().tolist() == [turn % 10 for turn in range(24)]


def test_scrambled_hashes_as_ycsb_does() -> None:
    def hashed(value: int) -> int:
        """FNV-1a of eight bytes, lowest first (Fowler, Noll, Vo; YCSB's Utils.fnvhash64)."""
        found = 0xCBF29CE484222325
        for byte in value.to_bytes(8, "little"):
            found = ((found ^ byte) * 1099511628211) % 2**64
        return abs(found - 2**64 if found >= 2**63 else found)

    items = [0, 1, 255, 256, 10**10, 2**63 + 5]
    assert fnv_hash(numpy.array(items, dtype=numpy.uint64)).tolist() == list(map(hashed, items))


def test_scrambled_draws_by_grays_formula() -> None:
    """Gray et al., SIGMOD 1994, section 3, written out for single draws."""
    items = ITEMS + 1
    eta = (1 - (2 / items) ** (1 - THETA)) / (1 - (1 + 0.5**THETA) / ZETA)
    wanted = []
    for u in block_stream(1, "draw").random(2000).tolist():
        item = int(items * (eta * u - eta + 1) ** (1 / (1 - THETA)))
        item = 0 if u * ZETA < 1 else 1 if u * ZETA < 1 + 0.5**THETA else item
        wanted.append(int(fnv_hash(numpy.array([item], dtype=numpy.uint64))[0]) % 1000)
    key = choice_of("ycsb_scrambled", KeySpace(1000)).draw(block_stream(1, "draw"), 2000)
    # A power of 100 of a sum near 1: the last bits may differ.
    assert (key == wanted).mean() > 0.99


@pytest.mark.parametrize(("keys", "share"), [(1000, 0.0388), (10_000, 0.0378), (10**6, 0.0378)])
def test_the_hottest_scrambled_key_has_its_share_whatever_the_keys(keys: int, share: float) -> None:
    # YCSB's quirk: 1 / zeta(10^10) = 3.78 % (its source, ScrambledZipfianGenerator), and what else
    # falls on that key: .1 points among 1,000.
    hottest = int(numpy.bincount(drawn("ycsb_scrambled", keys)).max())
    assert stats.binomtest(hottest, DRAWS, share).pvalue > 1e-3


# --- moving ones ------------------------------------------------------------------------


def test_a_hot_set_moves_by_operations_of_all_clients() -> None:
    moving = {"name": "hotspot", "keys_share": 0.25, "operations_share": 1.0}
    moving["moves_every_operations"] = 1000
    choice = choice_of(moving, KeySpace(100, client=1, clients=2))
    key = numpy.concatenate([choice.draw(block_stream(1, str(n)), 300) for n in range(10)])
    hot = key // 25
    assert hot.tolist() == [row * 2 // 1000 % 4 for row in range(3000)]


def test_a_hot_set_moves_by_time() -> None:
    moving = {"name": "hotspot", "keys_share": 0.3, "operations_share": 1.0, "moves_every": "1s"}
    choice = choice_of(moving, KeySpace(10))
    assert choice.timed
    key = choice.draw(block_stream(1, "hot"), 5000)
    assert set(key.tolist()) == {0, 1, 2}
    starts_ns = numpy.arange(5000, dtype=numpy.int64) * MS
    moved = choice.at(key, starts_ns)
    for second, hot in enumerate([{0, 1, 2}, {3, 4, 5}, {6, 7, 8}, {9, 0, 1}, {0, 1, 2}]):
        assert set(moved[second * 1000 : (second + 1) * 1000].tolist()) == hot


@pytest.mark.parametrize("by_time", [False, True])
def test_a_crowd_comes_and_goes(by_time: bool) -> None:
    crowd: dict[str, object] = {"name": "flash_crowd", "keys": 4, "share": 0.6, "base": "uniform"}
    if by_time:
        crowd |= {"at": "20s", "lasts": "40s"}
    else:
        crowd |= {"at_operation": 20_000, "lasts_operations": 40_000}
    choice = choice_of(crowd, KeySpace(100))
    key = choice.draw(block_stream(1, "crowd"), DRAWS)
    if by_time:
        key = choice.at(key, numpy.arange(DRAWS, dtype=numpy.int64) * MS)
    calm = numpy.full(100, 0.01)
    crowded = 0.4 * calm
    crowded[96:] += 0.6 / 4
    assert_law(key[:20_000], calm)
    assert_law(key[20_000:60_000], crowded)
    assert_law(key[60_000:], calm)


def test_a_crowd_upon_a_crowd_has_chances_of_its_own() -> None:
    there = {"name": "flash_crowd", "share": 0.5, "at_operation": 0, "lasts_operations": DRAWS}
    inner = there | {"keys": 2, "base": "uniform"}
    choice = choice_of(there | {"keys": 1, "base": inner}, KeySpace(10))
    shares = numpy.full(10, 0.25 / 10)
    shares[8:] += 0.25 / 2
    shares[9] += 0.5
    assert_law(choice.draw(block_stream(1, "crowds"), DRAWS), shares)


def test_times_do_not_move_inserted_keys_and_blocks_do_not_matter() -> None:
    crowd = {"name": "flash_crowd", "keys": 3, "share": 0.9, "at": "1s", "lasts": "10s"}
    workload = workload_of(crowd, mix="d")
    starts_ns = numpy.arange(20_000, dtype=numpy.int64) * MS // 4

    def run(cuts: list[int]) -> NDArray[numpy.int64]:
        stream = workload.stream(3, 0, 1)
        assert isinstance(stream, ChunkedStream)
        assert stream.timed
        parts, at = [], 0
        for count in cuts:
            parts.append(stream.at(stream.block(count), starts_ns[at : at + count]))
            at += count
        inserted = numpy.concatenate([part.key[part.kind == WRITE] for part in parts])
        numpy.testing.assert_array_equal(inserted, 1000 + numpy.arange(len(inserted)))
        return numpy.concatenate([part.key for part in parts])

    whole = run([20_000])
    numpy.testing.assert_array_equal(run([1, 0, 8190, 8192, 3617]), whole)
    there = (whole >= 997) & (whole < 1000)
    assert there[:4000].mean() < 0.01
    assert 0.8 < there[4000:].mean() < 0.9


def test_a_run_follows_the_crowd() -> None:
    crowd = {"name": "flash_crowd", "keys": 2, "share": 1.0, "at": "100ms", "lasts": "100ms"}
    given = {
        "runtime": "sim",
        "workload": {"name": "ycsb", "mix": "c", "keys": 50, "distribution": crowd},
        "arrival": {"name": "constant", "rate": "10000/s"},
        "warmup": "0s",
        "duration": "300ms",
    }
    history = execute(plan(load_mapping(given))).history
    second = (history.intended_ns >= 100 * MS) & (history.intended_ns < 200 * MS)
    crowded = numpy.array([history.key_names[key] for key in history.key.tolist()])
    asked = numpy.isin(crowded, [b"user000000000048", b"user000000000049"])
    assert asked[second].all()
    assert asked[~second].mean() < 0.1
    closed = override(load_mapping(given), {"arrival": {"name": "closed"}})
    with pytest.raises(ConfigError, match="'closed' does not know") as caught:
        plan(closed)
    assert caught.value.path == "workload"


@pytest.mark.parametrize("name", plugins(Family.KEYS))
def test_choices_do_not_depend_on_how_streams_are_cut(name: str) -> None:
    needed = {"flash_crowd": {"at_operation": 100, "lasts_operations": 9000}}
    workload = workload_of({"name": name} | needed.get(name, {}), mix="d")
    whole = workload.stream(3, 1, 2).block(20_000)
    stream = workload.stream(3, 1, 2)
    parts = numpy.concatenate([stream.block(count).key for count in (10, 0, 8191, 11_799)])
    numpy.testing.assert_array_equal(parts, whole.key)
    assert workload.stream(4, 1, 2).block(100).key.tolist() != whole.key[:100].tolist() or (
        name == "sequential"
    )


# --- configurations ---------------------------------------------------------------------


def test_a_name_alone_is_a_choice_and_paths_lead_into_it() -> None:
    bare = load_mapping({"workload": {"name": "ycsb", "distribution": "zipfian"}})
    long = load_mapping({"workload": {"name": "ycsb", "distribution": {"name": "zipfian"}}})
    assert bare == long == load_mapping(resolved(bare))
    skewed = override(bare, {"workload.distribution.theta": 1.2})
    assert skewed.workload.params.distribution.params.theta == 1.2
    moved = override(skewed, {"workload.distribution": "hotspot"})
    assert moved.workload.params.distribution.params.keys_share == 0.2
    moved = override(skewed, {"workload.distribution.name": "hotspot"})
    assert moved.workload.params.distribution.name == "hotspot"
    assert load_mapping({}).workload.params.distribution is None
    search = {"workload.distribution": {"type": "categorical", "choices": ["zipfian", "latest"]}}
    searched = load_mapping({"tune": {"search": search}})
    assert [axis.choices for axis in axes(searched)] == [("zipfian", "latest")]
    assert override(searched, {"workload.distribution": "latest"}).workload.params.distribution


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        ("zipfain", "unknown key_choice 'zipfain'"),
        (5, "5 is no key_choice"),
        ({"name": "zipfian", "theta": 11}, "out of bounds"),
        ({"name": "hotspot", "keys_share": 0}, "no key would be hot"),
        ({"name": "hotspot", "keys_share": 1.5}, "out of bounds"),
        ({"name": "hotspot", "keys_share": 0.9999}, "a share 0.9999 of 1000 keys is all"),
        ({"name": "hotspot", "moves_every": "1s", "moves_every_operations": 5}, "not by both"),
        ({"name": "flash_crowd"}, "a crowd needs at and lasts"),
        ({"name": "flash_crowd", "at": "1s"}, "a crowd needs at and lasts"),
        ({"name": "flash_crowd", "at": "-1s", "lasts": "1s"}, "-1s"),
        ({"name": "flash_crowd", "at": "1s", "lasts": "1s", "keys": 1001}, "1001 of 1000 keys"),
        ({"name": "flash_crowd", "at": "1s", "lasts": "1s", "base": "latest"}, "newest keys"),
        (
            {
                "name": "flash_crowd",
                "at_operation": 1,
                "lasts_operations": 1,
                "base": {"name": "hotspot", "moves_every": "1s"},
            },
            "needs a crowd that comes by time",
        ),
    ],
)
def test_what_cannot_be_picked_by_is_refused(distribution: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        workload_of(distribution)
    assert str(caught.value.path).startswith("workload.distribution")


def test_scrambled_has_one_skew() -> None:
    with pytest.raises(ConfigError, match=r"made for theta 0\.99, not 0\.5"):
        workload_of("ycsb_scrambled", theta=0.5)


@pytest.mark.parametrize("distribution", ["latest", {"name": "hotspot", "moves_every": "1s"}])
def test_transactions_take_neither_newest_nor_timed_keys(distribution: object) -> None:
    with pytest.raises(ConfigError, match="use another choice") as caught:
        load_mapping({"workload": {"name": "transactions", "distribution": distribution}})
    assert caught.value.path == "workload.distribution"
