"""Cores that come and go with the load: what is asked for, when it is there, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.load import load_mapping
from orchestrator.core.machine import OK
from orchestrator.core.record import ASKED, INTERVAL_NS, SCALED, RunRecord
from orchestrator.core.registry import Family, Slot, plugin, plugins
from orchestrator.core.scaling import Autoscaler, Seen, changes_of, provided_ns
from orchestrator.core.units import NS_PER_S
from orchestrator.errors import ConfigError
from orchestrator.plan import plan
from orchestrator.run import Runner
from orchestrator.runtimes import simulated
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._scaling import Scaling
from orchestrator.runtimes._virtual_clock import VirtualClock
from orchestrator.stored import write_run_report

AUTOSCALERS = list(plugins(Family.AUTOSCALER))


def make(name: str, **params: Any) -> Autoscaler:
    chosen = plugin(Family.AUTOSCALER, name)
    autoscaler: Autoscaler = chosen.implementation(chosen.params(**params))
    return autoscaler


# --- what is wanted ---------------------------------------------------------------------


@pytest.mark.parametrize("name", AUTOSCALERS)
@given(
    st.lists(
        st.tuples(st.integers(1, 64), st.integers(0, 9), st.floats(0, 1), st.integers(0, 999)),
        max_size=30,
    )
)
def test_every_autoscaler_says_how_many(
    name: str, looks: list[tuple[int, int, float, int]]
) -> None:
    one, other = make(name), make(name)
    for number, (cores, coming, utilisation, waiting) in enumerate(looks):
        seen = Seen(cores, coming, utilisation, waiting)
        wanted = one.wanted(seen, number * NS_PER_S)
        assert type(wanted) is int
        assert wanted >= 0
        assert wanted == other.wanted(seen, number * NS_PER_S), "it knows what it is told alone"


def wanted(utilisation: float, cores: int = 10, **params: Any) -> int:
    seen = Seen(cores, 0, utilisation, 0)
    return make("target_utilisation", **params).wanted(seen, 0)


def test_as_many_cores_as_are_used_to_the_target() -> None:
    """ceil(replicas x metric / target), and nothing within the tolerance: Kubernetes' rule."""
    assert wanted(0.9, target=0.5) == 18
    assert wanted(1.0, target=0.6) == 17
    assert wanted(0.3, target=0.6) == 5
    assert wanted(0.31, target=0.6) == 6
    assert wanted(0.0, target=0.6) == 0
    assert [wanted(each, target=0.6) for each in (0.55, 0.6, 0.65)] == [10, 10, 10]
    assert wanted(0.65, target=0.6, tolerance=0.0) == 11


def test_nothing_leaves_that_was_wanted_within_the_cooldown() -> None:
    autoscaler = make("target_utilisation", target=0.5, cooldown=10 * NS_PER_S)
    used = [1.0, 0.1, 0.3, 0.1, 0.1]
    told = [
        autoscaler.wanted(Seen(10, 0, each, 0), number * 5 * NS_PER_S)
        for number, each in enumerate(used)
    ]
    assert told == [20, 20, 20, 6, 6]


# --- when it is there -------------------------------------------------------------------


class Scripted:
    """Wants what it is told to, look by look, and then the last."""

    def __init__(self, params: Any = None) -> None:
        self._script = list(SCRIPT)
        self.seen: list[Seen] = SEEN

    def wanted(self, seen: Seen, now_ns: int) -> int:
        """The next of the script."""
        self.seen.append(seen)
        return self._script.pop(0) if len(self._script) > 1 else self._script[0]


SCRIPT: list[int] = []
SEEN: list[Seen] = []


class Node:
    """A node that is always busy."""

    stopped = False
    waiting = 3

    def __init__(self, clock: VirtualClock, cores: int) -> None:
        self._clock = clock
        self.sizes = [(0, cores)]

    @property
    def cpu_busy_ns(self) -> int:
        """Half of each core."""
        changes = [*self.sizes[1:], (self._clock.current_ns, 0)]
        ends = zip(self.sizes, changes, strict=True)
        return sum((end - at) * cores for (at, cores), (end, _) in ends) // 2

    def resize(self, cores: int) -> None:
        self.sizes.append((self._clock.current_ns, cores))


class Outlet:
    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []

    def note(self, kind: str, detail: str) -> None:
        self.notes.append((kind, detail))


def scaled(script: list[int], until: int, **params: Any) -> tuple[Node, Outlet]:
    """Cores over looks at 10, 20, ... of an autoscaler with a script, from 4 on."""
    SCRIPT[:], SEEN[:] = script, []
    clock, outlet = VirtualClock(-5), Outlet()
    node = Node(clock, 4)
    given = {"period": 10, "delay": 25, "least": 2, "most": 9} | params
    chosen = plugin(Family.AUTOSCALER, "target_utilisation")
    scaling = Scaling(
        node,
        Slot(Family.AUTOSCALER, "target_utilisation", chosen.params(**given)),
        4,
        clock.now_ns,
        clock.at,
        outlet.note,
    )
    scaling._autoscaler = Scripted()
    scaling.begin()
    clock.run(until)
    return node, outlet


def test_cores_come_a_delay_after_they_were_asked_for() -> None:
    node, outlet = scaled([6], 60)
    assert node.sizes == [(0, 4), (35, 6)]
    assert outlet.notes == [(ASKED, "2"), (SCALED, "6")]
    # What is coming is not asked for again.
    assert [each[:2] for each in SEEN] == [(4, 0), (4, 2), (4, 2), (6, 0), (6, 0), (6, 0)]
    assert [each.utilisation for each in SEEN] == [0.5] * 6
    assert SEEN[0].waiting == 3


def test_what_is_too_much_leaves_at_once_and_what_is_coming_first() -> None:
    node, _ = scaled([4, 3], 60)
    assert node.sizes == [(0, 4), (20, 3)]
    # Two orders, of 2 and 3; the second is called off, and one of the first.
    node, outlet = scaled([6, 9, 5], 90)
    assert node.sizes == [(0, 4), (35, 5)]
    assert outlet.notes == [(ASKED, "2"), (ASKED, "3"), (SCALED, "5")]
    node, _ = scaled([6, 3], 90)
    assert node.sizes == [(0, 4), (20, 3)]


def test_bounds_hold_whatever_is_wanted() -> None:
    assert scaled([100], 60)[0].sizes == [(0, 4), (35, 9)]
    assert scaled([0], 60)[0].sizes == [(0, 4), (10, 2)]
    assert scaled([6], 60, delay=0)[0].sizes == [(0, 4), (10, 6)]


# --- what it costs ----------------------------------------------------------------------

TENTH = INTERVAL_NS // 10


@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(-20, 60), st.integers(1, 9)), max_size=6),
)
def test_provided_time_is_that_of_all_cores_in_service(
    cores: int, changes: list[tuple[int, int]]
) -> None:
    changes.sort(key=lambda each: each[0])
    found = provided_ns(cores, [(at * TENTH, each) for at, each in changes], 4)
    at_tenth = [cores] * 40
    for at, each in changes:
        at_tenth[max(0, at) :] = [each] * (40 - min(40, max(0, at)))
    expected = numpy.array(at_tenth).reshape(4, 10).sum(axis=1) * TENTH
    numpy.testing.assert_array_equal(found, expected)


# --- runs -------------------------------------------------------------------------------


def parts(autoscaler: dict[str, Any] | None, **root: Any) -> Parts:
    """A node of two cores and 500 reads a second, and for four seconds thrice as many."""
    node = {"cores": 2, "cpu": {"read": {"name": "exponential", "mean": "4ms"}}}
    crowd = {"base": "250/s", "peak": "1500/s", "at": "2s", "lasts": "4s"}
    config = {
        "runtime": "sim",
        "system": {"node": node | {"autoscaler": autoscaler} | root.pop("node", {})},
        "prices": {"core": 1},
        "workload": {"name": "ycsb", "mix": "c", "keys": 100},
        "arrival": {"name": "flash_crowd"} | crowd,
        "client": {"timeout": "5s"},
        "warmup": "1s",
        "duration": "9s",
        "slo": {"p99": "100ms"},
    }
    return plan(load_mapping(config | root))


def by_target(**params: Any) -> dict[str, Any]:
    quick = {"period": "250ms", "cooldown": "1s", "delay": "0s"}
    return {"name": "target_utilisation"} | quick | params


def good(record: RunRecord) -> float:
    history = record.history
    took_ns = history.returned_ns - history.intended_ns
    return float(((history.outcome == OK) & (took_ns <= NS_PER_S // 10)).mean())


def test_the_longer_new_cores_take_the_more_of_a_crowd_is_lost() -> None:
    shares = [good(simulated.run(parts(None)))]
    for delay in ("1s", "250ms", "0s"):
        record = simulated.run(parts(by_target(delay=delay)))
        changes = changes_of(record.events, 0)
        assert max(cores for _, cores in changes) > 6
        assert changes[-1][1] < 4, "they leave when the crowd has left"
        shares.append(good(record))
    assert shares == sorted(shares)
    assert shares[0] < 0.1 < shares[1] < 0.5
    assert shares[3] > 0.8


def test_the_result_says_what_was_in_service_and_what_it_cost(tmp_path: Path) -> None:
    made = parts(by_target())
    found = Runner(results=str(tmp_path)).run(made)
    changes = [change for change in changes_of(found.record.events, 0) if change[0] >= NS_PER_S]
    assert len(changes) == len(changes_of(found.record.events, 0))
    edges = [NS_PER_S, *(at for at, _ in changes), 10 * NS_PER_S]
    mean = numpy.average([2, *(cores for _, cores in changes)], weights=numpy.diff(edges))
    scaling = found.summary["scaling"]
    assert found.summary["cost"] == pytest.approx(mean, rel=1e-6)
    assert scaling["mean_cores"] == pytest.approx(mean, rel=1e-6)
    assert scaling["actions"] == len(changes)
    assert scaling["most_cores"] == max(cores for _, cores in changes)
    assert found.summary["bottleneck"]["utilisation"] < 1
    assert Runner(results=str(tmp_path)).run(parts(None)).summary["scaling"] is None


def test_the_report_shows_the_cores_over_time(tmp_path: Path) -> None:
    runner = Runner(results=str(tmp_path))
    for autoscaler in (by_target(), None):
        found = runner.run(parts(autoscaler, duration="3s"))
        page, figures = write_run_report(runner.store, found.run_id)
        drawn = next(path for path in figures if path.name == "time-series.svg").read_text()
        assert ("Cores in service" in drawn) == (autoscaler is not None)
        assert (ASKED in page.read_text()) == (autoscaler is not None)
    rows = runner.store.table("nodes", found.run_id).to_pylist()
    assert {row["cores"] for row in rows} == {2.0}


def test_with_as_few_as_many_cores_it_is_the_plain_node() -> None:
    pinned = simulated.run(parts(by_target(least=2, most=2)))
    plain = simulated.run(parts(None))
    assert not changes_of(pinned.events, 0)
    numpy.testing.assert_array_equal(pinned.history.returned_ns, plain.history.returned_ns)


def test_the_same_seed_gives_the_same_cores() -> None:
    one, other = (simulated.run(parts(by_target(), duration="3s")) for _ in range(2))
    assert one.events == other.events
    assert changes_of(one.events, 0)


def test_a_queue_and_its_refusals_go_by_the_cores_that_there_are() -> None:
    short = {"queue": {"name": "fifo", "limit": 4}}
    refused = {}
    for delay in ("0s", "4s"):
        record = simulated.run(parts(by_target(delay=delay), node=short))
        refused[delay] = sum(node.refused.sum() for node in record.nodes)
    assert 0 < refused["0s"] < refused["4s"] / 2


def test_a_node_that_comes_back_begins_with_the_cores_it_began_with() -> None:
    node = {"storage": {"durability": "fsync"}, "queue": {"name": "fifo"}}
    crash = {"name": "crash", "target": 0, "at": "5s", "restart_after": "500ms"}
    record = simulated.run(parts(by_target(), node=node, faults=[crash]))
    changes = changes_of(record.events, 0)
    assert (5_500_000_000, 2) in changes
    assert max(cores for at, cores in changes if at < 5 * NS_PER_S) > 6
    assert max(cores for at, cores in changes if at > 5_500_000_000) > 2


def test_an_authority_has_no_autoscaler() -> None:
    protocol = {"name": "primary_backup", "mode": "sync"}
    config = {
        "runtime": "sim",
        "system": {"protocol": protocol, "replicas": 2, "node": {"autoscaler": by_target()}},
        "warmup": "0s",
        "duration": "600ms",
    }
    record = simulated.run(plan(load_mapping(config)))
    assert {event.node for event in record.events if event.kind == SCALED} <= {0, 1}
    assert len(record.history) > 100


@pytest.mark.parametrize(
    ("node", "path"),
    [
        ({"autoscaler": {"name": "target_utilization"}}, "autoscaler"),
        ({"autoscaler": {"name": "target_utilisation", "target": 0}}, "autoscaler.target"),
        ({"autoscaler": {"name": "target_utilisation", "target": 1.5}}, "autoscaler.target"),
        ({"autoscaler": {"name": "target_utilisation", "delay": "-1s"}}, "autoscaler.delay"),
        ({"autoscaler": {"name": "target_utilisation", "period": "0s"}}, "autoscaler.period"),
        ({"autoscaler": {"name": "target_utilisation", "least": 5, "most": 4}}, "autoscaler.most"),
        ({"autoscaler": {"name": "target_utilisation", "least": 2}}, "cores"),
        ({"autoscaler": {"name": "target_utilisation", "most": 4}, "cores": 5}, "cores"),
        ({"autoscaler": {"name": "target_utilisation"}, "costs": "measured"}, "autoscaler"),
    ],
)
def test_bad_input(node: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_mapping({"system": {"node": node}})
    assert caught.value.path is not None
    assert caught.value.path.removesuffix(".name") == f"system.node.{path}"
