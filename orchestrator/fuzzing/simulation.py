"""One scenario, run and judged.

Safety is checked while faults happen: the machines' own invariants after every event, and the
checkers on the whole history, each level on all writes and the reads that asked for it.
Liveness is checked after the faults have ended: the replicas that claim it must converge, and
the operations of the final phase must succeed.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from orchestrator.config.load import load_mapping
from orchestrator.core import levels
from orchestrator.core.faults import Hazards
from orchestrator.core.history import History
from orchestrator.core.machine import OK, ClaimContext
from orchestrator.core.models import TXN
from orchestrator.core.per_level import check_levels
from orchestrator.core.record import digests_to_compare
from orchestrator.core.registry import Slot
from orchestrator.core.units import format_duration
from orchestrator.core.verdict import UNDECIDED, VALID, Evidence, key_text
from orchestrator.errors import ConfigError, EnvironmentFailure
from orchestrator.fuzzing.cluster import Chosen, FuzzedCluster
from orchestrator.fuzzing.load import ScenarioLoad
from orchestrator.fuzzing.scenario import Scenario
from orchestrator.fuzzing.watch import Agreement, watched
from orchestrator.runtimes._parts import Parts, contents_digest
from orchestrator.systems.replicated_store import MEMORY, ReplicatedStore, ReplicatedStoreParams

INVARIANT: Final = "invariant"
LIVENESS: Final = "liveness"
LIVELY: Final = 0.75
"""Share of the final phase's operations that have to succeed."""
TELLING: Final = 3
"""Fewer failures than that may be chance."""


@dataclass(frozen=True)
class Violation:
    """``property``: a level, ``invariant`` or ``liveness``. ``at_ns``: when it had shown.
    ``undecided``: the checker could not tell, which is no success either.
    """

    property: str
    explanation: str
    witness: tuple[Mapping[str, Any], ...] = ()
    at_ns: int | None = None
    undecided: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a simulation showed. ``marks``: what it reached, by name."""

    violation: Violation | None
    operations: int
    effective_faults: int
    marks: dict[str, int]
    history: History | None = None


def simulate(scenario: Scenario, machine: type[Any] | None = None) -> Outcome:
    """Run a scenario; ``machine`` stands in for the protocol's own."""
    cluster = FuzzedCluster(parts_of(scenario, machine), scenario)
    collecting = gc.isenabled()
    gc.disable()
    try:
        cluster.plan()
        violation = _run(cluster)
    finally:
        if collecting:
            gc.enable()
    for node in cluster.fuzzed:
        cluster.collect_marks(node)
    history = History.concatenate([client.driver.history() for client in cluster.clients])
    if violation is None:
        violation = _judge(cluster, history)
    effective = sum(cluster.effective.values())
    return Outcome(violation, len(history), effective, cluster.marks, history)


def parts_of(scenario: Scenario, machine: type[Any] | None = None) -> Parts:
    """The plan of a scenario. Raises ConfigError where its configuration is none."""
    config = load_mapping(
        {
            "runtime": "sim",
            "seed": scenario.seed,
            "system": scenario.system,
            # A scenario that does not say so is from before clients could.
            "client": {"shun_silent": False} | scenario.client,
            "clients": scenario.clients,
            "warmup": "0s",
            "duration": "1s",
        }
    )
    store = config.system.params
    slot = store.protocol
    if store.tier is not None:
        pattern = _watched(store.tier.pattern, machine)
        params = replace(store, tier=replace(store.tier, pattern=pattern))
    elif store.transactions is None:
        # Each shard has an order of its own.
        agreement = Agreement() if store.shards == 1 else None
        params = replace(store, protocol=_watched(slot, machine, agreement))
    else:
        # Whose check is one of the machines below it, too.
        params = replace(store, transactions=_watched(store.transactions, machine))
    config = replace(config, system=replace(config.system, params=params))
    system = ReplicatedStore(params)
    system.validate(1)
    _refuse_restarts(scenario, params)
    load: Any = ScenarioLoad(scenario)
    return Parts(config, system, load, load)


def _watched(slot: Slot, machine: type[Any] | None, agreement: Agreement | None = None) -> Slot:
    """The slot with the invariants of its machine, or the given one, checked after each event."""
    chosen_machine = watched(machine or slot.implementation, agreement)
    return Chosen(slot.family, slot.name, slot.params, chosen_machine)


def _refuse_restarts(scenario: Scenario, store: ReplicatedStoreParams) -> None:
    """A node without durable records has lost its votes and its log: it must stay away."""
    if store.node.storage.durability != MEMORY:
        return
    for index, fault in enumerate(scenario.faults):
        if fault.kind != "crash" or not fault.until_ns:
            continue
        context = ClaimContext(store.replicas, False, MEMORY, scenario.nodes, restarts=True)
        implementation, own = store.deployed
        strongest = next(iter(implementation.claims(own, replace(context, restarts=False))), "")
        reason = implementation.why_not(own, context, strongest)
        raise ConfigError(
            "a crashed node cannot come back under durability: memory"
            + (f": {reason}" if reason else ", which keeps nothing"),
            path=f"faults[{index}].until",
            hint="use durability: fsync, or leave `until` out",
        )


def _run(cluster: FuzzedCluster) -> Violation | None:
    try:
        cluster.run()
    except AssertionError as error:
        at_ns = max(0, cluster.clock.current_ns)
        text = f"at {format_duration(at_ns)}: {_said(error)}"
        return Violation(INVARIANT, text, at_ns=at_ns)
    except EnvironmentFailure as error:
        return Violation(LIVENESS, str(error))
    return None


def _said(error: AssertionError) -> str:
    """The message of an assertion, or the code that failed."""
    import traceback

    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{str(error) or frame.line} ({frame.name})"


def _judge(cluster: FuzzedCluster, history: History) -> Violation | None:
    scenario, store = cluster.scenario, cluster.parts.store
    sticky = cluster.parts.config.client.stays
    context = ClaimContext(
        store.replicas,
        sticky,
        store.node.storage.durability,
        cluster.parts.system.nodes,
        restarts=store.node.storage.durability != "memory",
        crashes=True,
    )
    implementation, own = store.deployed
    model = cluster.parts.workload.model
    held = implementation.claims(own, context)
    if store.tier is not None:
        held = store.tier.claims(held, _cache_hazards(cluster))
    claimed = levels.fitting(held, transactional=model == TXN)
    live = [node.shell.machine for node in cluster.nodes if not node.shell.stopped]
    digests = digests_to_compare(contents_digest(machine) for machine in live)
    evidence = Evidence(model=model, digests=digests)
    # Without a node that is away for good neither liveness nor convergence is promised.
    whole = len(live) == len(cluster.nodes)
    for found in check_levels(history, claimed, evidence).verdicts:
        if found.level == levels.EVENTUAL and not whole:
            continue
        if found.verdict != VALID:
            returns = [each["returned_ns"] or each["invoked_ns"] for each in found.witness]
            at_ns = max(returns) if returns else None
            undecided = found.verdict == UNDECIDED
            return Violation(found.level, found.explanation, found.witness, at_ns, undecided)
    left = cluster.unfinished()
    if whole and any(left):
        return Violation(
            LIVENESS,
            f"At the end the nodes still have something to see to, such as locks: {left}.",
        )
    return _stuck(scenario, history) if whole else None


def _cache_hazards(cluster: FuzzedCluster) -> Hazards:
    """Whether nodes of the tier crash."""
    crashes = [fault.node for fault in cluster.scenario.faults if fault.kind == "crash"]
    return Hazards(cache_crashes=any(node in cluster.parts.tier_nodes for node in crashes))


def _stuck(scenario: Scenario, history: History) -> Violation | None:
    """Whether the final phase shows that something does not go on.

    A slow network may cost single operations their time-out even then, so few show nothing.
    """
    final = history.select(history.invoked_ns >= scenario.final_ns)
    ok = final.service_outcome == OK
    served = Counter(final.key[ok].tolist())
    asked = Counter(final.key.tolist())
    unserved = [key for key, times in asked.items() if times >= TELLING and not served[key]]
    if len(final) < TELLING or (not unserved and ok.sum() >= LIVELY * len(final)):
        return None
    what = f"of {len(final)} operations of the final phase {int(ok.sum())} succeeded"
    if unserved:
        what += f", and none on key {key_text(final, unserved[0])}"
    return Violation(
        LIVENESS, f"All faults had ended at {format_duration(scenario.heal_ns)}: {what}."
    )
