"""What every protocol must keep, over the registry and the choices of each one's parameters."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any, get_args

import msgspec
import pytest
from machine_bench import Bench, Wanted, everything
from sim_faults import configured, problem_of, simulate

from orchestrator.core import levels
from orchestrator.core.machine import (
    LINK_KINDS,
    OK,
    READ,
    WRITE,
    ClaimContext,
    ClusterView,
    Effect,
    Event,
    Op,
    Persist,
    Send,
)
from orchestrator.core.registry import Family, plugins
from orchestrator.core.units import NS_PER_MS
from orchestrator.core.verdict import INVALID, check
from orchestrator.protocols.primary_backup import PRIMARY, PrimaryBackup

# Short times, so that a short run sees elections and retransmissions.
QUICK: dict[str, dict[str, Any]] = {
    "raft": {"election_timeout": "60ms", "heartbeat": "10ms"},
    "primary_backup": {"resend": "40ms"},
}
CONDITIONS = {
    "calm": ("system.network.loss=0",),
    "lossy": ("system.network.loss=0.03", "system.node.cores=2"),
    "reordering": ("system.network.ordering=none", "system.network.loss=0.02"),
    "unbatched": ("system.batch.max=1", "system.node.storage.durability=memory"),
}


@dataclass(frozen=True)
class Variant:
    """A protocol with some of its choices, on as many nodes as it takes."""

    name: str
    choices: tuple[tuple[str, Any], ...]
    replicas: int

    def __str__(self) -> str:
        return "-".join([self.name, *(str(value).lower() for _, value in self.choices)])

    @property
    def system(self) -> dict[str, Any]:
        """The parts of the config that it sets."""
        protocol = {"name": self.name} | QUICK.get(self.name, {}) | dict(self.choices)
        return {"protocol": protocol, "replicas": self.replicas}

    @property
    def machine(self) -> type[Any]:
        return plugins(Family.PROTOCOL)[self.name].implementation

    @property
    def params(self) -> Any:
        return configured(1, self.system).system.params.protocol.params

    def claims(self, *, sticky: bool) -> frozenset[str]:
        context = ClaimContext(self.replicas, sticky, "fsync")
        held: frozenset[str] = self.machine.claims(self.params, context)
        return held


def variants() -> list[Variant]:
    """Every protocol with every combination of its words and switches."""
    found = []
    for name, plugin in plugins(Family.PROTOCOL).items():
        fields = dataclasses.fields(plugin.params)
        options: list[list[tuple[str, Any]]] = []
        for field in fields:
            if "options" in field.metadata:
                options.append([(field.name, word) for word in field.metadata["options"]])
            elif field.type == "bool":
                options.append([(field.name, switch) for switch in (False, True)])
        for choices in itertools.product(*options):
            params = plugin.params(**dict(choices))
            fits = [n for n in (3, 1) if plugin.implementation.validate(params, n, n) is None]
            found.append(Variant(name, choices, fits[0]))
    return found


HARD = {"gap_ns": 40 * NS_PER_MS}
VARIANTS = variants()
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)


def bench_of(variant: Variant, nodes: int | None = None) -> Bench:
    """All nodes started and whatever they say first delivered."""
    bench = Bench(variant.machine, variant.params, nodes or variant.replicas)
    bench.deliver()
    return bench


def settle(bench: Bench, wanted: Wanted = everything, rounds: int = 12) -> None:
    """Let every timer fire a few times, in order of time."""
    for _ in range(rounds):
        for node, timer in sorted(bench.timers, key=lambda each: bench.timers[each]):
            if (node, timer) in bench.timers:
                bench.fire(node, timer)
                bench.deliver(wanted)


def ask(bench: Bench, node: int, op: Op) -> Any:
    """The answer to an operation that starts at ``node`` and follows redirects."""
    for _ in range(len(bench.nodes) + 1):
        handle = bench.request(node, op)
        bench.deliver()
        if handle not in bench.redirects:
            return bench.replies[handle]
        node = bench.redirects[handle].node
        assert node >= 0, "all nodes are up, so somebody is known to serve it"
    raise AssertionError("redirected in circles")


def contents(bench: Bench) -> list[dict[bytes, tuple[bytes, int]]]:
    """Copies, since machines write in place."""
    return [
        {key: (entry.value, entry.version) for key, entry in machine.contents().items()}
        for machine in bench.machines
    ]


# --- in the simulator -------------------------------------------------------------------


@pytest.mark.parametrize("condition", CONDITIONS)
@every_variant
def test_claims_hold_and_replicas_converge(variant: Variant, condition: str) -> None:
    for seed, sticky in ((1, "true"), (2, "false")):
        overrides = (*CONDITIONS[condition], f"client.sticky={sticky}", "duration=700ms")
        assert problem_of(configured(seed, variant.system, *overrides)) == ""


@every_variant
def test_crashes_and_cuts_break_no_claim(variant: Variant) -> None:
    for seed in range(3):
        # Not sticky: a client that loses its replica goes to another one.
        config = configured(seed, variant.system, "client.sticky=false", "duration=1s")
        assert problem_of(config, faults={}) == ""


@pytest.mark.long
@pytest.mark.timeout(900)
@every_variant
def test_many_crashes_and_cuts_break_no_claim(variant: Variant) -> None:
    for seed in range(100, 140):
        condition = ("system.network.ordering=none",) if seed % 2 else ()
        config = configured(seed, variant.system, "client.sticky=false", *condition)
        found = problem_of(config, faults={"gap_ns": (60 + seed % 3 * 40) * NS_PER_MS})
        assert found == "", f"seed {seed}"


@pytest.mark.parametrize("name", sorted(plugins(Family.PROTOCOL)))
def test_messages_and_records_survive_the_codec_and_never_change(name: str) -> None:
    variant = next(each for each in VARIANTS if each.name == name)
    seen: list[tuple[Any, Any, bytes]] = []
    encode = msgspec.msgpack.encode

    def watch(machine: Any, event: Event, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                assert effect.message.link in LINK_KINDS
                seen.append((variant.machine.Message, effect.message, encode(effect.message)))
            elif isinstance(effect, Persist):
                seen.append((variant.machine.Record, effect.record, encode(effect.record)))

    simulate(configured(3, variant.system, "duration=600ms"), watch=watch, faults={})
    assert len(seen) > 40
    # What was sent is shared by sender and receivers: nobody may have touched it since.
    for kind, value, encoded in seen:
        assert encode(value) == encoded
        assert normal(msgspec.msgpack.decode(encoded, type=kind)) == normal(value)
    sent = {type(value) for kind, value, _ in seen if kind is variant.machine.Message}
    declared = get_args(variant.machine.Message)
    assert sent == set(declared)


def normal(value: Any) -> Any:
    """Tuples as lists: both are one kind of array on the wire."""
    return msgspec.to_builtins(value, builtin_types=(bytes,))


# --- on the bench -----------------------------------------------------------------------


@every_variant
def test_any_node_answers_or_says_who_does(variant: Variant) -> None:
    bench = bench_of(variant)
    for node in bench.nodes:
        written = ask(bench, node, Op(10 + node, 1, WRITE, b"k", b"%d" % node))
        assert written.outcome == OK
        assert ask(bench, node, Op(20 + node, 1, READ, b"k", seen=written.version)).outcome == OK


@every_variant
def test_candidates_serve_what_they_are_candidates_for(variant: Variant) -> None:
    bench = bench_of(variant)
    view = ClusterView(bench.nodes)
    for kind in (WRITE, READ):
        candidates = variant.machine.candidates(variant.params, Op(1, 1, kind, b"k"), view)
        assert set(candidates) <= set(bench.nodes)
        for node in candidates:
            handle = bench.request(node, Op(10 * kind + node + 1, 1, kind, b"k", b"v"))
            bench.deliver()
            assert bench.replies[handle].outcome == OK


@every_variant
def test_a_retried_write_takes_effect_once(variant: Variant) -> None:
    bench = bench_of(variant)
    first = Op(1, 1, WRITE, b"k", b"first")
    again = [ask(bench, 0, first), ask(bench, 0, Op(2, 1, WRITE, b"k", b"second"))]
    again.append(ask(bench, len(bench.nodes) - 1, first))
    assert [reply.outcome for reply in again] == [OK, OK, OK]
    assert again[2].version == again[0].version < again[1].version
    settle(bench)
    assert [found[b"k"] for found in contents(bench)] == [(b"second", again[1].version)] * len(
        bench.nodes
    )


@every_variant
def test_two_copies_on_their_way_together_take_effect_once(variant: Variant) -> None:
    bench = bench_of(variant)
    first, second = Op(1, 1, WRITE, b"k", b"first"), Op(2, 1, WRITE, b"k", b"second")
    handles = [bench.request(0, op, number) for number, op in enumerate((first, second, first))]
    bench.deliver()
    settle(bench)
    versions = [bench.replies[handle].version for handle in handles]
    assert versions[0] == versions[2] < versions[1]
    assert [found[b"k"][0] for found in contents(bench)] == [b"second"] * len(bench.nodes)


@every_variant
def test_lost_messages_are_made_up_for(variant: Variant) -> None:
    bench = bench_of(variant)
    lost = itertools.cycle([True, False, False])
    for number in range(1, 30):
        bench.request(0, Op(number, 1, WRITE, b"k%d" % (number % 5), b"%d" % number))
        bench.deliver(lambda *_: not next(lost))
    settle(bench)
    assert len(contents(bench)[0]) == 5
    assert all(found == contents(bench)[0] for found in contents(bench))


@every_variant
def test_acknowledged_writes_survive_a_crash_of_all(variant: Variant) -> None:
    bench = bench_of(variant)
    for number in range(1, 20):
        ask(bench, 0, Op(number, 1, WRITE, b"k%d" % (number % 5), b"%d" % number))
    before = contents(bench)[0]
    for node in bench.nodes:
        bench.crash(node)
    for node in bench.nodes:
        bench.restart(node)
    bench.deliver()
    settle(bench)
    for found in contents(bench):
        assert {key: value for key, (value, _) in found.items()} == {
            key: value for key, (value, _) in before.items()
        }
    reading = ask(bench, 0, Op(99, 1, READ, b"k4"))
    assert reading.value == before[b"k4"][0]


@every_variant
def test_claims_are_levels_that_the_catalogue_names(variant: Variant) -> None:
    described = plugins(Family.PROTOCOL)[variant.name].claims
    for sticky in (False, True):
        assert variant.claims(sticky=sticky) <= set(described) <= set(levels.LEVELS)
        assert variant.claims(sticky=sticky), "at least convergence"


# --- the claims of primary-backup -------------------------------------------------------


def test_what_primary_backup_claims() -> None:
    def claimed(sticky: bool, mode: str = "sync", replicas: int = 3, **choices: Any) -> set[str]:
        params = plugins(Family.PROTOCOL)["primary_backup"].params(mode=mode, **choices)
        return set(PrimaryBackup.claims(params, ClaimContext(replicas, sticky, "memory")))

    assert claimed(False) == claimed(True, "async") == {levels.LINEARIZABLE}
    assert claimed(False, "async", 1, read_from="any") == {levels.LINEARIZABLE}
    assert claimed(False, read_from="any") == {levels.EVENTUAL}
    sticky = {levels.EVENTUAL, levels.MONOTONIC_READS}
    assert claimed(True, "async", read_from="any") == sticky
    assert claimed(True, "semi_sync", read_from="any") == sticky
    assert claimed(True, read_from="any") == sticky | {levels.READ_YOUR_WRITES}
    waiting = claimed(False, "async", read_from="any", session_wait=True)
    assert waiting == sticky | {levels.READ_YOUR_WRITES}


@pytest.mark.parametrize(
    ("mode", "level"),
    [("sync", "linearizable"), ("async", "read_your_writes"), ("async", "monotonic_reads")],
)
def test_what_is_not_claimed_does_not_hold(mode: str, level: str) -> None:
    """Otherwise the tests above would show little."""
    system = {"protocol": {"name": "primary_backup", "mode": mode, "read_from": "any"}}
    config = configured(1, system | {"replicas": 3}, "client.sticky=false")
    assert check(simulate(config).history, level).verdict == INVALID


class SendsUnflushed(PrimaryBackup):
    """Its backups may hold writes that a crash takes from the primary."""

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        return [
            Send(effect.target, effect.message, overlap=True) if type(effect) is Send else effect
            for effect in super().handle(event, now_ns)
        ]


class HidesWhatItRecovers(PrimaryBackup):
    """Shows recovered writes only once the backups acknowledge them again."""

    def _recover(self, records: list[Any], effects: list[Effect]) -> None:
        super()._recover(records, effects)
        if self._node == PRIMARY:
            self._state.values.clear()
            self._applied = 0


@pytest.mark.parametrize("twin", [SendsUnflushed, HidesWhatItRecovers])
def test_faults_catch_a_broken_twin(twin: type[PrimaryBackup]) -> None:
    system = {"protocol": {"name": "primary_backup"} | QUICK["primary_backup"]}
    overrides = ("duration=1s", "system.node.storage.sync.mean=5ms")
    problems = (
        problem_of(configured(seed, system, *overrides), machine=twin, faults=HARD)
        for seed in range(10)
    )
    assert next((problem for problem in problems if problem), "") != ""
