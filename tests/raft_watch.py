"""Raft's safety properties watched across all nodes of a simulation (figure 3 of the paper), and
storms: random elections on a bench.
"""

from __future__ import annotations

import random
from typing import Any

from machine_bench import Bench, Wanted, among

from orchestrator.core.machine import WRITE, Effect, Event, Op, Received
from orchestrator.protocols._raft_election import (
    ELECTION,
    HEARTBEAT,
    LEADER,
    VoteReply,
    VoteRequest,
)
from orchestrator.protocols.raft import Raft

RECENT = 8
"""Entries at the end of a log that are compared after every event; appends are shorter."""


class RaftWatch:
    """Called after every event of every node.

    Log matching is checked by induction: an index and a term tell the operation and the term
    of the entry before.
    """

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self._entries: dict[tuple[int, int], tuple[Any, int]] = {}
        # index -> (term of the entry, operation, term in which it was known to be committed)
        self._committed: dict[int, tuple[int, Any, int]] = {}
        self._commits: dict[int, int] = {}
        self._machines: dict[int, Raft] = {}

    def __call__(self, machine: Any, event: Event, effects: list[Effect]) -> None:
        node: int = machine._node
        if self._machines.get(node) is not machine:
            self._machines[node] = machine
            self._commits[node] = 0
        self._votes_once(node, event)
        self._logs_match(machine, max(machine.log.base + 1, machine.log.last - RECENT))
        self._applies_the_same(node, machine)
        if machine.role == LEADER and self.leaders.get(machine.term) != node:
            self._leads(node, machine)

    def finish(self) -> None:
        """Compare whole logs."""
        for machine in self._machines.values():
            self._logs_match(machine, machine.log.base + 1)

    def _votes_once(self, node: int, event: Event) -> None:
        # As heard: what a crash took back before it was durable was not said.
        if isinstance(event, Received) and isinstance(event.message, VoteReply):
            voter, reply = event.source, event.message
            if reply.granted and not reply.pre:
                voted = self._votes.setdefault((voter, reply.term), node)
                assert voted == node, f"node {voter} voted twice in {reply.term}"

    def _logs_match(self, machine: Raft, first: int) -> None:
        log = machine.log
        for index in range(first, log.last + 1):
            op = log.ops[index - log.base - 1]
            entry = ((op.session, op.sequence), log.term_at(index - 1))
            known = self._entries.setdefault((index, log.term_at(index)), entry)
            assert known == entry, f"logs differ at {index}: {known} and {entry}"

    def _applies_the_same(self, node: int, machine: Raft) -> None:
        log = machine.log
        for index in range(max(self._commits[node], log.base) + 1, machine.commit + 1):
            op = log.ops[index - log.base - 1]
            entry = (log.term_at(index), (op.session, op.sequence), machine.term)
            known = self._committed.setdefault(index, entry)
            assert known[:2] == entry[:2], f"entry {index} was committed as {known} and {entry}"
        self._commits[node] = machine.commit

    def _leads(self, node: int, machine: Raft) -> None:
        term = machine.term
        leader = self.leaders.setdefault(term, node)
        assert leader == node, f"nodes {leader} and {node} lead in term {term}"
        log = machine.log
        for index, (entry_term, _, known_in) in self._committed.items():
            if known_in < term and index > log.base:
                held = index <= log.last and log.term_at(index) == entry_term
                assert held, f"leader {node} of term {term} lacks committed entry {index}"


def votes_among(part: list[int]) -> Wanted:
    """Elections go through within the part; everything else is lost."""
    return lambda source, target, message: (
        source in part and target in part and isinstance(message, VoteRequest | VoteReply)
    )


class Storm:
    """Random elections, crashes and losses on a bench, dense enough for rare interleavings.

    Each round somebody stands, sometimes with a rival, among a random part of the nodes; some
    of the messages that follow arrive, in any order, and somebody may crash.
    """

    def __init__(self, bench: Bench, chance: random.Random) -> None:
        self._bench = bench
        self._chance = chance
        self._requests = 0
        # Some storms let elections through whole and lose what leaders send, others mix all.
        self._whole_elections = chance.choice((0.0, 0.6))

    def rage(self, rounds: int) -> None:
        """That many rounds."""
        for _ in range(rounds):
            self._round()

    def _round(self) -> None:
        bench, chance = self._bench, self._chance
        self._restart(0.6)
        up = [node for node in bench.nodes if not bench.down[node]]
        if not up:
            return
        candidates = chance.sample(up, min(len(up), chance.choice((1, 1, 2))))
        side = chance.sample(up, chance.randint(1, len(up)))
        part = sorted({*side, *candidates})
        for _ in range(2):
            for candidate in candidates:
                self._fire(candidate, ELECTION)
            if chance.random() < self._whole_elections:
                bench.deliver(votes_among(part))
            else:
                self._deliver(12, part)
            if chance.random() < 0.3:
                bench.crash(chance.choice(part))
                self._restart(1.0)
        self._requests += 1
        bench.request(candidates[0], Op(self._requests, 1, WRITE, b"k", b"%d" % self._requests))
        self._deliver(10, part)
        if chance.random() < 0.4:
            self._fire(candidates[0], HEARTBEAT)
            self._deliver(10, part)
        if chance.random() < 0.5:
            bench.crash(candidates[0])
        if chance.random() < 0.2:
            bench.wire.clear()

    def _fire(self, node: int, timer: str) -> None:
        self._bench.now_ns += 1000
        if (node, timer) in self._bench.timers:
            self._bench.fire(node, timer)

    def _restart(self, probability: float) -> None:
        for node in self._bench.nodes:
            if self._bench.down[node] and self._chance.random() < probability:
                self._bench.restart(node)

    def _deliver(self, most: int, part: list[int]) -> None:
        """Up to ``most`` messages, mostly in order; those that leave the part are lost."""
        wire, chance = self._bench.wire, self._chance
        for _ in range(chance.randint(0, most)):
            if not wire:
                return
            index = 0 if chance.random() < 0.8 else chance.randrange(len(wire))
            lost = chance.random() < 0.07
            self._bench.deliver_one(index, among() if lost else among(*part))
