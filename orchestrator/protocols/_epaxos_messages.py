"""What nodes of EPaxos say to each other, and what they write down.

An instance is named by its row (the node that proposed it) and its number there. Dependencies
are one number a row: on every instance of that row up to it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core.machine import ACKNOWLEDGE, REPLICATE, Op
from orchestrator.core.portions import ENTRY_BYTES, op_bytes

# Phases of an instance on one node.
UNKNOWN_YET, PRE_ACCEPTED, ACCEPTED, COMMITTED, EXECUTED = range(5)
FETCH: Final = 0
"""Ballot of a Recover that only asks for what is committed."""


class Choice(msgspec.Struct, array_like=True, gc=False):
    """A value for an instance: its operations after ``deps``, or nothing at all (``void``).

    ``ops`` is empty where the receiver has them from the PreAccept.
    """

    row: int
    number: int
    ballot: int
    void: bool
    ops: list[Op]
    deps: list[int]


class State(msgspec.Struct, array_like=True, gc=False):
    """What a node knows of an instance. ``ballot``: the one it has promised; above the one that
    was asked for it is a refusal. ``accepted``: the ballot of the value. ``unchanged``: ``deps``
    are those that the proposer started with. ``proposer``: the sender proposed it, and has not
    restarted since.
    """

    row: int
    number: int
    ballot: int
    phase: int
    accepted: int
    void: bool
    ops: list[Op]
    deps: list[int]
    unchanged: bool
    proposer: bool


class Candidate(msgspec.Struct, array_like=True, gc=False):
    """A value that the fast path may have chosen; ``holders`` pre-accepted it unchanged."""

    row: int
    number: int
    ballot: int
    ops: list[Op]
    deps: list[int]
    holders: list[int]


class Rival(msgspec.Struct, array_like=True, gc=False):
    """An interfering instance of which neither depends on the other. ``holders``: known to have
    pre-accepted it unchanged.
    """

    row: int
    number: int
    committed: bool
    holders: list[int]


class Judgement(msgspec.Struct, array_like=True, gc=False):
    """What speaks against a candidate."""

    row: int
    number: int
    ballot: int
    rivals: list[Rival]


class PreAccept(msgspec.Struct, array_like=True, tag=1, gc=False):
    """The sender proposes ``ops`` in its instance ``number`` (ballot 0)."""

    link: ClassVar[str] = REPLICATE
    number: int
    ops: list[Op]
    deps: list[int]


class PreAccepted(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Pre-accepted after ``deps`` (empty: those that were proposed)."""

    link: ClassVar[str] = ACKNOWLEDGE
    number: int
    deps: list[int]


class Accept(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Paxos' phase 2a."""

    link: ClassVar[str] = REPLICATE
    choices: list[Choice]


class Accepted(msgspec.Struct, array_like=True, tag=4, gc=False):
    """Paxos' phase 2b: (row, number, ballot) each."""

    link: ClassVar[str] = ACKNOWLEDGE
    instances: list[tuple[int, int, int]]


class Commit(msgspec.Struct, array_like=True, tag=5, gc=False):
    """These values are chosen."""

    link: ClassVar[str] = REPLICATE
    choices: list[Choice]


class Recover(msgspec.Struct, array_like=True, tag=6, gc=False):
    """Paxos' phase 1a, the paper's Prepare: (row, number, ballot) each."""

    link: ClassVar[str] = REPLICATE
    instances: list[tuple[int, int, int]]


class Recovered(msgspec.Struct, array_like=True, tag=7, gc=False):
    """Paxos' phase 1b."""

    link: ClassVar[str] = ACKNOWLEDGE
    states: list[State]


class Validate(msgspec.Struct, array_like=True, tag=8, gc=False):
    """Does anything speak against these values?"""

    link: ClassVar[str] = REPLICATE
    candidates: list[Candidate]


class Validated(msgspec.Struct, array_like=True, tag=9, gc=False):
    """Answers to Validate."""

    link: ClassVar[str] = ACKNOWLEDGE
    judgements: list[Judgement]


class Executed(msgspec.Struct, array_like=True, tag=10, gc=False):
    """The sender has executed, and durably knows, each row up to ``through``.

    ``answer``: it wants to hear the same of the receiver.
    """

    link: ClassVar[str] = ACKNOWLEDGE
    through: list[int]
    answer: bool


class Saved(msgspec.Struct, array_like=True, gc=False):
    """Durable state of an instance. ``ops``: None where an earlier record has them."""

    row: int
    number: int
    ballot: int
    accepted: int
    phase: int
    void: bool
    ops: list[Op] | None
    initial_deps: list[int] | None
    deps: list[int]


_NUMBER_BYTES: Final = 9


def item_bytes(item: Any) -> int:
    """What an item of a message takes in it, or slightly more."""
    match item:
        case Choice() | State() | Candidate():
            operations = sum(op_bytes(op) for op in item.ops)
            # Candidates name as many nodes again.
            return ENTRY_BYTES + operations + 2 * _NUMBER_BYTES * len(item.deps)
        case Judgement():
            named = sum(len(rival.holders) for rival in item.rivals)
            return ENTRY_BYTES + ENTRY_BYTES * len(item.rivals) + _NUMBER_BYTES * named
        case _:
            return ENTRY_BYTES
