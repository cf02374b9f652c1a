"""The arithmetic of quorums: what a configuration may claim, and why it may claim no more."""

from __future__ import annotations

from typing import Final, Protocol

from orchestrator.core.demand import Demand, Demands, Log, Round, Step, everyone
from orchestrator.core.levels import (
    CAUSAL,
    CAUSAL_MEMORY,
    EVENTUAL,
    LINEARIZABLE,
    MONOTONIC_READS,
    REGULAR,
    SEQUENTIAL,
    SESSIONS,
)
from orchestrator.core.machine import READ_COPY, READ_REPLY, ClaimContext
from orchestrator.protocols._quorum_values import SIBLINGS

CLOCK: Final = "clock"
READ_FIRST: Final = "read"
ANY, REPLICA, OUTSIDE = "any", "replica", "outside"
_FSYNC: Final = "fsync"
_BEYOND: Final = (LINEARIZABLE, SEQUENTIAL, CAUSAL, CAUSAL_MEMORY, SESSIONS, MONOTONIC_READS)


class Choices(Protocol):
    """The parameters that claims depend on."""

    @property
    def read_quorum(self) -> int | None: ...
    @property
    def write_quorum(self) -> int | None: ...
    @property
    def handoff(self) -> bool: ...
    @property
    def sloppy(self) -> bool: ...
    @property
    def conflicts(self) -> str: ...
    @property
    def coordinator(self) -> str: ...
    @property
    def versions(self) -> str: ...


def quorums(params: Choices, replicas: int) -> tuple[int, int]:
    """R and W of so many replicas; a majority where none is given."""
    majority = replicas // 2 + 1
    return params.read_quorum or majority, params.write_quorum or majority


def held_levels(params: Choices, context: ClaimContext) -> frozenset[str]:
    """The levels that hold for every history."""
    levels = (REGULAR, EVENTUAL)
    return frozenset(level for level in levels if not why_not_held(params, context, level))


def levels_of_reads(params: Choices, context: ClaimContext) -> frozenset[str]:
    """The levels that a read may ask for: an eventual one takes the first answer."""
    return held_levels(params, context)


def why_not_held(params: Choices, context: ClaimContext, level: str) -> str:
    """Why the level does not hold; empty where it does, or where there is no more to say."""
    forgets = ""
    if context.restarts and context.durability != _FSYNC:
        forgets = f"with durability {context.durability} nodes that restart forget copies"
    if level == EVENTUAL:
        return forgets or _no_convergence(params, context)
    missed = forgets or _missed(params, context)
    if level == REGULAR:
        return missed or _unordered(params)
    if level in _BEYOND:
        return missed or (
            "a read writes nothing back, so of two reads the later one may find an older value "
            "while a write is under way or failed halfway (abd writes back)"
        )
    return ""


def _missed(params: Choices, context: ClaimContext) -> str:
    replicas = context.replicas
    read, write = quorums(params, replicas)
    if read + write <= replicas:
        return f"R {read} + W {write} is not above N {replicas}: a read may miss the newest write"
    spare = max(context.nodes, replicas) - replicas
    if params.sloppy and spare:
        return (
            f"sloppy: up to {min(spare, write)} of W {write} copies may be on nodes that are no "
            "replicas of the key, so a read may miss the newest write"
        )
    return ""


def _unordered(params: Choices) -> str:
    if params.versions != CLOCK:
        return ""
    if params.conflicts == SIBLINGS:
        reason = "a write supersedes only what its session has seen, not every older one"
    else:
        reason = "a write whose coordinator's clock is behind loses to an older one"
    return f"versions: clock: {reason} (versions: read asks R replicas first)"


def _no_convergence(params: Choices, context: ClaimContext) -> str:
    nodes = max(context.nodes, context.replicas)
    if nodes > context.replicas:
        return (
            f"with nodes {nodes} above replicas {context.replicas} nodes hold different keys, "
            "and convergence compares whole nodes"
        )
    if not params.handoff and context.replicas > 1:
        return "without handoff a replica that missed a write may keep its older copy"
    return ""


def misfit(params: Choices, replicas: int, nodes: int) -> str | None:
    """Why the parameters cannot run on so many replicas and nodes; None if they can."""
    if nodes < replicas:
        return f"{replicas} copies of a key need as many nodes, not {nodes}"
    for name, size in (("read_quorum", params.read_quorum), ("write_quorum", params.write_quorum)):
        if size is not None and size > replicas:
            return f"{name} {size} is above the {replicas} replicas"
    if params.coordinator == OUTSIDE and nodes == replicas:
        return "coordinator: outside needs more nodes than replicas"
    if params.conflicts == SIBLINGS:
        if params.coordinator == OUTSIDE:
            return "siblings get their dots from replicas: not with coordinator: outside"
        if params.coordinator == ANY and nodes > replicas:
            return "siblings get their dots from replicas: coordinator must be replica here"
    return None


def coordinated(
    replicas: int,
    read_quorum: int,
    write_quorum: int,
    *,
    level: str = "",
    asks_first: bool = True,
    overlap: bool = False,
    repair: bool = False,
) -> Demands:
    """What operations ask of nodes that all hold a copy and all coordinate. ``overlap``: a
    coordinator's own record is written while the others write theirs; ``repair``: a read hears
    all, to mend those that lack what it returned.
    """
    everywhere = everyone(replicas)
    need = 0 if level == EVENTUAL else read_quorum - 1
    find = Round(need, out=READ_COPY, back=READ_REPLY, looks_up=True)
    # A node that is enough by itself asks the others for repair alone.
    alone = not need and not repair
    read = Demand(everywhere) if alone else Demand(everywhere, (find,), looks_up=False)
    ask = Round(read_quorum - 1, out=READ_COPY, back=READ_REPLY)
    write: tuple[Step, ...] = (ask,) if asks_first and read_quorum > 1 else ()
    if overlap:
        write = (*write, Round(write_quorum - 1, logs=True, own=True))
    else:
        write = (*write, Log(), Round(write_quorum - 1, logs=True))
    return Demands(read, Demand(everywhere, write))
