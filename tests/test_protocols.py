"""What every protocol must keep, over the registry and the choices of each one's parameters."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any, get_args

import msgspec
import pytest
from machine_bench import Bench, Wanted, everything
from sim_faults import FINAL_SESSION, configured, problem_of, simulate

from orchestrator.config.schema import Config
from orchestrator.core import levels, portions
from orchestrator.core.machine import (
    ADD,
    INCREMENT,
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
from orchestrator.core.parameters import ParameterError
from orchestrator.core.registry import Family, plugins
from orchestrator.core.units import NS_PER_MS
from orchestrator.core.verdict import VALID, check_claims

VIEWS = {"heartbeat": "10ms", "lease": "60ms"}
# Short times, so that a short run sees elections and retransmissions.
QUICK: dict[str, dict[str, Any]] = {
    "multi_paxos": {"election_timeout": "60ms", "heartbeat": "10ms"},
    "epaxos": {"recovery": "60ms", "resend": "20ms"},
    "raft": {
        "election_timeout": "60ms",
        "heartbeat": "10ms",
        "snapshot_every": 12,
        "snapshot_chunk": "100B",
    },
    "primary_backup": {"resend": "40ms", "keep": 8} | VIEWS,
    "chain": {"resend": "40ms", "keep": 8} | VIEWS,
    "causal": {"interval": "20ms", "keep": 8},
    "gossip": {"interval": "20ms"},
    "quorum": {"resend": "40ms", "give_up": "400ms"},
    "abd": {"resend": "40ms", "give_up": "400ms"},
    "craq": {"resend": "40ms", "keep": 8} | VIEWS,
}
COMBINATIONS_MAX = 16
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

    @property
    def commanded(self) -> str:
        """An override: every command that it knows, about node 1, one after the other."""
        commands = sorted(self.machine.commands, reverse=True)
        given = [
            f"{{command: {command}, node: 1, at: {100 + 100 * number}ms}}"
            for number, command in enumerate(commands)
        ]
        return f"system.administration=[{', '.join(given)}]"

    @property
    def kinds(self) -> frozenset[int]:
        served: frozenset[int] = self.machine.kinds_of(self.params)
        return served

    @property
    def converges(self) -> bool:
        """Whether its claims say that all replicas hold the same in the end."""
        return levels.EVENTUAL in levels.closure(self.claims(sticky=False))

    @property
    def orders(self) -> bool:
        """Whether its writes have versions in one order; siblings, say, have none."""
        return bool(ask(bench_of(self), 0, Op(1, 1, WRITE, b"k", b"v")).version)

    def claims(self, *, sticky: bool) -> frozenset[str]:
        context = ClaimContext(self.replicas, sticky, "fsync")
        held: frozenset[str] = self.machine.claims(self.params, context)
        return held


def combinations(
    options: list[list[tuple[str, Any]]], defaults: dict[str, Any]
) -> list[tuple[tuple[str, Any], ...]]:
    """All of them; where they are many, the default and what differs from it in one choice."""
    every = list(itertools.product(*options))
    if len(every) <= COMBINATIONS_MAX:
        return every
    return [each for each in every if sum(value != defaults[name] for name, value in each) <= 1]


def variants() -> list[Variant]:
    """Every protocol with the combinations of its words and switches."""
    found = []
    for name, plugin in plugins(Family.PROTOCOL).items():
        fields = dataclasses.fields(plugin.params)
        options: list[list[tuple[str, Any]]] = []
        for field in fields:
            if "options" in field.metadata:
                options.append([(field.name, word) for word in field.metadata["options"]])
            elif field.type == "bool":
                options.append([(field.name, switch) for switch in (False, True)])
        for choices in combinations(options, {field.name: field.default for field in fields}):
            try:
                params = plugin.params(**dict(choices))
            except ParameterError:  # choices that exclude each other
                continue
            fits = [n for n in (3, 1) if plugin.implementation.validate(params, n, n) is None]
            # Some choices need nodes that are no replicas: their own tests have them.
            if fits:
                found.append(Variant(name, choices, fits[0]))
    return found


HARD = {"gap_ns": 40 * NS_PER_MS}
VARIANTS = variants()
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)
every_register = pytest.mark.parametrize(
    "variant", [each for each in VARIANTS if WRITE in each.kinds], ids=str
)
UPDATES = {WRITE: "write", INCREMENT: "increment", ADD: "add"}


def config_of(variant: Variant, seed: int, *overrides: str) -> Config:
    """A config of the variant under a load that it serves."""
    update = next(word for kind, word in UPDATES.items() if kind in variant.kinds)
    return configured(seed, variant.system, f"workload.update={update}", *overrides)


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
        for machine in bench.machines[: len(bench.nodes)]
    ]


# --- in the simulator -------------------------------------------------------------------


def variant_problem(variant: Variant, config: Config, **options: Any) -> str:
    """What a simulation found wrong; replicas that need not converge are judged by what clients
    saw alone.
    """
    if variant.converges:
        return problem_of(config, **options)
    history = simulate(config, **options).history
    seen = history.select(history.session < FINAL_SESSION)
    verdicts = check_claims(seen, variant.claims(sticky=config.client.sticky)).verdicts
    return "; ".join(found.explanation for found in verdicts if found.verdict != VALID)


@pytest.mark.parametrize("condition", CONDITIONS)
@every_variant
def test_claims_hold_and_replicas_converge(variant: Variant, condition: str) -> None:
    for seed, sticky in ((1, "true"), (2, "false")):
        overrides = (*CONDITIONS[condition], f"client.sticky={sticky}", "duration=700ms")
        assert variant_problem(variant, config_of(variant, seed, *overrides)) == ""


@every_variant
def test_crashes_and_cuts_break_no_claim(variant: Variant) -> None:
    for seed in range(3):
        # Not sticky: a client that loses its replica goes to another one.
        config = config_of(variant, seed, "client.sticky=false", "duration=1s")
        assert variant_problem(variant, config, faults={}) == ""


@pytest.mark.long
@pytest.mark.timeout(900)
@every_variant
def test_many_crashes_and_cuts_break_no_claim(variant: Variant) -> None:
    for seed in range(100, 140):
        condition = ("system.network.ordering=none",) if seed % 2 else ()
        config = config_of(variant, seed, "client.sticky=false", *condition)
        faults = {"gap_ns": (60 + seed % 3 * 40) * NS_PER_MS}
        found = variant_problem(variant, config, faults=faults)
        assert found == "", f"seed {seed}"


@pytest.mark.parametrize("name", sorted(plugins(Family.PROTOCOL)))
def test_messages_and_records_survive_the_codec_and_never_change(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small states are large, so that they go in pieces.
    monkeypatch.setattr(portions, "PORTION_BYTES", 1 << 8)
    of_name = [each for each in VARIANTS if each.name == name]
    # With an authority more is said.
    variant = max(of_name, key=lambda each: each.machine.authority_of(each.params) is not None)
    seen: list[tuple[Any, Any, bytes]] = []
    encode = msgspec.msgpack.encode

    def watch(machine: Any, event: Event, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                assert effect.message.link in LINK_KINDS
                seen.append((variant.machine.Message, effect.message, encode(effect.message)))
            elif isinstance(effect, Persist):
                seen.append((machine.Record, effect.record, encode(effect.record)))

    declared = set(get_args(variant.machine.Message))
    sent: set[Any] = set()
    for seed in range(3, 23):
        if sent == declared:
            break
        seen.clear()
        config = config_of(variant, seed, "duration=600ms", variant.commanded)
        simulate(config, watch=watch, faults=HARD)
        assert len(seen) > 40
        sent |= {type(value) for kind, value, _ in seen if kind is variant.machine.Message}
        survives(seen)
    assert sent == declared


def survives(seen: list[tuple[Any, Any, bytes]]) -> None:
    """Assert that every value is what it was when it was encoded, and that it decodes."""
    # What was sent is shared by sender and receivers: nobody may have touched it since.
    for kind, value, encoded in seen:
        assert msgspec.msgpack.encode(value) == encoded
        assert normal(msgspec.msgpack.decode(encoded, type=kind)) == normal(value)


def normal(value: Any) -> Any:
    """Tuples as lists: both are one kind of array on the wire."""
    return msgspec.to_builtins(value, builtin_types=(bytes,))


# --- on the bench -----------------------------------------------------------------------


@every_register
def test_any_node_answers_or_says_who_does(variant: Variant) -> None:
    bench = bench_of(variant)
    for node in bench.nodes:
        written = ask(bench, node, Op(10 + node, 1, WRITE, b"k", b"%d" % node))
        assert written.outcome == OK
        assert ask(bench, node, Op(20 + node, 1, READ, b"k", seen=written.version)).outcome == OK


@every_register
def test_candidates_serve_what_they_are_candidates_for(variant: Variant) -> None:
    bench = bench_of(variant)
    for kind in (WRITE, READ):
        view = ClusterView(bench.nodes)
        candidates = variant.machine.candidates(variant.params, Op(1, 1, kind, b"k"), view)
        assert set(candidates) <= set(bench.nodes)
        handle = bench.request(candidates[0], Op(1, kind + 1, kind, b"k", b"v"))
        bench.deliver()
        if handle in bench.redirects:
            # The first guess may be wrong; what the client learns from it is not.
            node = bench.redirects[handle].node
            view = ClusterView(bench.nodes, writer=node, reader=node)
            candidates = variant.machine.candidates(variant.params, Op(1, 1, kind, b"k"), view)
        for node in candidates:
            handle = bench.request(node, Op(10 * kind + node + 1, 1, kind, b"k", b"v"))
            bench.deliver()
            assert bench.replies[handle].outcome == OK


@every_register
def test_a_retried_write_takes_effect_once(variant: Variant) -> None:
    bench = bench_of(variant)
    first = Op(1, 1, WRITE, b"k", b"first")
    again = [ask(bench, 0, first), ask(bench, 0, Op(2, 1, WRITE, b"k", b"second"))]
    # By then the last node has heard of it, however slowly news travel.
    settle(bench)
    again.append(ask(bench, len(bench.nodes) - 1, first))
    assert [reply.outcome for reply in again] == [OK, OK, OK]
    assert again[2].version == again[0].version
    settle(bench)
    assert [found[b"k"][0] for found in contents(bench)] == [b"second"] * len(bench.nodes)
    if variant.orders:
        assert again[0].version < again[1].version
        assert {found[b"k"][1] for found in contents(bench)} == {again[1].version}


@every_register
def test_two_copies_on_their_way_together_take_effect_once(variant: Variant) -> None:
    bench = bench_of(variant)
    first, second = Op(1, 1, WRITE, b"k", b"first"), Op(2, 1, WRITE, b"k", b"second")
    handles = [bench.request(0, op, number) for number, op in enumerate((first, second, first))]
    bench.deliver()
    settle(bench)
    versions = [bench.replies[handle].version for handle in handles]
    assert versions[0] == versions[2]
    assert versions[0] < versions[1] or not variant.orders
    assert [found[b"k"][0] for found in contents(bench)] == [b"second"] * len(bench.nodes)


@every_register
def test_lost_messages_are_made_up_for(variant: Variant) -> None:
    bench = bench_of(variant)
    lost = itertools.cycle([True, False, False])
    for number in range(1, 30):
        bench.request(0, Op(number, 1, WRITE, b"k%d" % (number % 5), b"%d" % number))
        bench.deliver(lambda *_: not next(lost))
    settle(bench)
    assert len({key for found in contents(bench) for key in found}) == 5
    assert all(found == contents(bench)[0] for found in contents(bench)) or not variant.converges


@every_register
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
        assert variant.claims(sticky=sticky), "something holds"
