"""How EPaxos finishes instances whose proposer does not: explicit recovery.

Phase 1 of a higher ballot (the paper's Prepare, section 4.3.3), with the ballot of the last vote
kept apart from the promised one as Sutra showed to be necessary ("On the correctness of
Egalitarian Paxos", Information Processing Letters 2020). What is then safe to propose follows
Ryabinin, Gotsman and Sutra, "Making Democracy Work: Fixing and Simplifying Egalitarian Paxos"
(OPODIS 2025, section 5), in place of the paper's TryPreAccept, whose published form leaves open
which ballot a tentative pre-acceptance counts for. With n nodes, quorums of n - f (f: tolerated
crashes) and a fast path of n - e, and the states of a quorum Q:

* A committed or accepted value is taken over, the one of the highest vote.
* Else only the fast path can have chosen something. It has not if the proposer is in Q, or if
  more than e nodes certainly did not pre-accept the proposer's dependencies unchanged: the
  value is void (the proposer proposes its operations anew).
* Else the candidate may be chosen, but is safe to choose now only if each interfering instance
  depends on it or the other way round. Q is asked, and from then on counts it as known. A
  rival that is committed makes it void. Nodes that pre-accepted a rival unchanged (its proposer
  among them) knew nothing of the candidate before, hence did not pre-accept that unchanged: if
  with them more than e did not, the value is void. Otherwise the rivals are recovered first.

Rivals that are forgotten, because all nodes have executed them, may be passed over: they come
first everywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Final

from orchestrator.core.machine import Effect, MachineContext, Mark, Op
from orchestrator.protocols._epaxos_instances import (
    Instance,
    Interference,
    Lead,
    Quest,
    Row,
    interfere,
)
from orchestrator.protocols._epaxos_messages import (
    ACCEPTED,
    COMMITTED,
    FETCH,
    PRE_ACCEPTED,
    Accept,
    Accepted,
    Candidate,
    Choice,
    Commit,
    Judgement,
    PreAccept,
    Recover,
    Recovered,
    Rival,
    State,
    Validate,
    Validated,
)

CHASED_MAX: Final = 1024
"""Instances that one tick of the clock looks after."""
_ATTEMPTS_MAX: Final = 4  # after which patience grows no more


class Recovery(ABC):
    """A node as the one who finishes instances; who proposes and executes builds on it."""

    def __init__(self, context: MachineContext, recovery_ns: int, resend_ns: int) -> None:
        count = len(context.nodes)
        crashes = (count - 1) // 2
        self._node = context.node
        self._peers = context.peers
        self._count = count
        self._chance = context.chance
        self._recovery_ns = recovery_ns
        self._resend_ns = resend_ns
        self._quorum = count - crashes
        # The greatest e with n >= 2e + f - 1, for which a fast quorum is F + floor((F + 1) / 2).
        self._slack = min(crashes, (count - crashes + 1) // 2)
        self._fast_quorum = count - self._slack
        self._rows = [Row() for _ in context.nodes]
        self._looked_at = 0
        self._known = Interference(count)
        self._executed_at: dict[int, list[int]] = {}
        self._dirty: dict[Instance, bool] = {}
        self._now_ns = 0

    @abstractmethod
    def _post(self, target: int, message: Any, item: Any) -> None:
        """Send an item in a message of that class."""

    @abstractmethod
    def _post_all(self, message: Any, item: Any) -> None:
        """Send an item to all other nodes."""

    @abstractmethod
    def _learn(self, choice: Choice, effects: list[Effect]) -> None:
        """A value is chosen."""

    @abstractmethod
    def _take_slow_path(self, instance: Instance, lead: Lead, effects: list[Effect]) -> None:
        """The proposer has the answers of a quorum, but not all alike."""

    def _find(self, row: int, number: int) -> Instance | None:
        """The instance, made up where it is not known; None where it is forgotten."""
        known = self._rows[row]
        if number <= known.gone:
            return None
        instance = known.instances.get(number)
        if instance is None:
            instance = known.instances[number] = Instance(row, number)
            known.top = max(known.top, number)
        return instance

    # --- patience -------------------------------------------------------------------------

    def _look_after(self, effects: list[Effect]) -> None:
        """Whatever is not committed in time is fetched, sent again or recovered."""
        chased = 0
        for index, row in enumerate(self._rows):
            for number in range(row.executed + 1, row.top + 1):
                instance = self._find(index, number)
                if instance is None or instance.phase >= COMMITTED:
                    continue
                chased += 1
                if chased > CHASED_MAX:
                    return
                self._chase(instance, effects)

    def _chase(self, instance: Instance, effects: list[Effect]) -> None:
        row, number, now_ns = instance.row, instance.number, self._now_ns
        waits = instance.due_ns != 0
        if waits and now_ns < instance.due_ns:
            return
        helpers = [node for node, through in self._executed_at.items() if through[row] >= number]
        if helpers:
            self._post(self._chance.choice(helpers), Recover, (row, number, FETCH))
            instance.due_ns = now_ns + self._resend_ns
        elif instance.lead is not None:
            if waits:
                self._send_again(instance, instance.lead, effects)
            instance.due_ns = now_ns + self._resend_ns
        else:
            if waits:
                self._recover(instance, effects)
            patience_ns = self._recovery_ns * (1 + min(instance.attempts, _ATTEMPTS_MAX))
            instance.due_ns = now_ns + patience_ns + self._chance.randrange(patience_ns + 1)

    def _send_again(self, instance: Instance, lead: Lead, effects: list[Effect]) -> None:
        """The proposer makes up for lost messages."""
        if instance.phase == PRE_ACCEPTED:
            if len(lead.voters) >= self._quorum:
                # The fast path is out of reach.
                self._take_slow_path(instance, lead, effects)
                return
            message = PreAccept(instance.number, instance.ops, instance.initial_deps or [])
            for peer in self._peers:
                if peer not in lead.voters:
                    self._post(peer, None, message)
        else:
            for peer in self._peers:
                if instance.accepts is not None and peer not in instance.accepts:
                    self._post(peer, Accept, instance.choice(whole=True))

    # --- phase 1 --------------------------------------------------------------------------

    def _recover(self, instance: Instance, effects: list[Effect]) -> None:
        """Begin a ballot above all that were heard of."""
        effects.append(Mark("recovery"))
        instance.attempts += 1
        newest = max(instance.ballot, instance.seen)
        ballot = (newest // self._count + 1) * self._count + self._node
        state = self._state_of(instance)
        instance.promise(ballot)
        instance.quest = Quest(ballot)
        instance.quest.states[self._node] = state
        self._dirty[instance] = True
        self._post_all(Recover, (instance.row, instance.number, ballot))
        if self._quorum == 1:
            self._decide(instance, instance.quest, effects)

    def _state_of(self, instance: Instance) -> State:
        return instance.state()

    def _recover_asked(self, source: int, asked: list[tuple[int, int, int]]) -> None:
        for row, number, ballot in asked:
            instance = self._find(row, number)
            if instance is None:
                continue
            if instance.phase >= COMMITTED:
                self._post(source, Commit, instance.choice(whole=True))
            elif ballot == FETCH:
                continue
            else:
                state = self._state_of(instance)
                if ballot > instance.ballot:
                    instance.promise(ballot)
                    self._dirty[instance] = True
                state.ballot = instance.ballot
                self._post(source, Recovered, state)

    def _recovered(self, source: int, states: list[State], effects: list[Effect]) -> None:
        for state in states:
            instance = self._find(state.row, state.number)
            if instance is None or instance.phase >= COMMITTED:
                continue
            quest = instance.quest
            instance.seen = max(instance.seen, state.ballot)
            if quest is None or state.ballot != quest.ballot:
                continue
            quest.states[source] = state
            # While a candidate is judged, another answer matters only if it settles the matter.
            settles = state.phase == ACCEPTED or state.proposer
            if settles if quest.asked else len(quest.states) >= self._quorum:
                self._decide(instance, quest, effects)

    def _decide(self, instance: Instance, quest: Quest, effects: list[Effect]) -> None:
        """What a quorum's states allow to propose."""
        states = quest.states
        newest = max(state.accepted for state in states.values())
        votes = [state for state in states.values() if state.accepted == newest]
        for state in votes:
            if state.phase == ACCEPTED:
                self._propose_again(instance, quest, state.void, state.ops, state.deps, effects)
                return
        unchanged = {node: state for node, state in states.items() if state.unchanged}
        proposer_joined = any(state.proposer for state in states.values())
        if proposer_joined or len(states) - len(unchanged) > self._slack or not unchanged:
            self._propose_again(instance, quest, True, [], [0] * self._count, effects)
            return
        candidate = next(iter(unchanged.values()))
        quest.asked = tuple(states)
        quest.holders = list(unchanged)
        quest.ops, quest.deps = candidate.ops, candidate.deps
        question = Candidate(
            instance.row, instance.number, quest.ballot, quest.ops, quest.deps, quest.holders
        )
        quest.judgements[self._node] = self._judgement(instance, question)
        for node in quest.asked:
            if node != self._node:
                self._post(node, Validate, question)
        self._judge(instance, quest, effects)

    # --- may the fast path's value be chosen? ---------------------------------------------

    def _validate(self, source: int, candidates: list[Candidate]) -> None:
        for candidate in candidates:
            instance = self._find(candidate.row, candidate.number)
            if instance is None or instance.ballot != candidate.ballot:
                continue
            if instance.phase >= COMMITTED:
                self._post(source, Commit, instance.choice(whole=True))
            else:
                self._post(source, Validated, self._judgement(instance, candidate))

    def _judgement(self, instance: Instance, candidate: Candidate) -> Judgement:
        """Note the candidate, so that what comes later depends on it, and find its rivals."""
        self._keep_ops(instance, candidate.ops)
        instance.initial_deps = candidate.deps
        instance.holders.update(dict.fromkeys(candidate.holders, True))
        self._dirty[instance] = True
        row, number = instance.row, instance.number
        rivals = [
            Rival(
                other.row,
                other.number,
                other.phase >= COMMITTED,
                [*other.holders, other.row],
            )
            for other in self._independent_of(row, candidate.deps)
            if self._is_rival(other, row, number) and interfere(other.ops, candidate.ops)
        ]
        return Judgement(row, number, candidate.ballot, rivals)

    def _independent_of(self, own_row: int, deps: list[int]) -> Iterable[Instance]:
        """Instances of other rows that are not among ``deps``. Those of a row depend on the
        earlier ones there with which they interfere.
        """
        for index, row in enumerate(self._rows):
            if index != own_row:
                for number, instance in row.instances.items():
                    if number > deps[index]:
                        yield instance

    def _is_rival(self, other: Instance, row: int, number: int) -> bool:
        """Whether an instance may be committed, or is, without a dependency on (row, number)."""
        if other.phase >= COMMITTED:
            return not other.void and other.deps[row] < number
        return other.initial_deps is not None and other.initial_deps[row] < number

    def _validated(self, source: int, judgements: list[Judgement], effects: list[Effect]) -> None:
        for judgement in judgements:
            instance = self._find(judgement.row, judgement.number)
            quest = None if instance is None else instance.quest
            if instance is not None and quest is not None and quest.ballot == judgement.ballot:
                quest.judgements[source] = judgement
                self._judge(instance, quest, effects)

    def _judge(self, instance: Instance, quest: Quest, effects: list[Effect]) -> None:
        """Everybody asked has judged the candidate: propose it, or nothing, or wait."""
        if any(node not in quest.judgements for node in quest.asked):
            return
        # These did not, or will not, pre-accept the candidate unchanged.
        against = {node: True for node in quest.asked if node not in quest.holders}
        lost, rivals = False, []
        for node in quest.asked:
            for rival in quest.judgements[node].rivals:
                known = self._find(rival.row, rival.number)
                if known is None or (
                    known.phase >= COMMITTED
                    and not self._is_rival(known, instance.row, instance.number)
                ):
                    continue
                lost = lost or rival.committed or known.phase >= COMMITTED
                against.update(dict.fromkeys(rival.holders, True))
                rivals.append(known)
        if lost or len(against) > self._slack:
            self._propose_again(instance, quest, True, [], [0] * self._count, effects)
        elif not rivals:
            self._propose_again(instance, quest, False, quest.ops, quest.deps, effects)
        else:
            effects.append(Mark("waiting"))
            instance.quest = None
            instance.due_ns = (
                self._now_ns + self._resend_ns + self._chance.randrange(self._recovery_ns + 1)
            )
            for known in rivals:
                known.due_ns = min(known.due_ns, self._now_ns) or self._now_ns

    # --- phase 2 --------------------------------------------------------------------------

    def _propose_again(
        self,
        instance: Instance,
        quest: Quest,
        void: bool,
        ops: list[Op],
        deps: list[int],
        effects: list[Effect],
    ) -> None:
        if void:
            effects.append(Mark("void"))
        choice = Choice(instance.row, instance.number, quest.ballot, void, ops, deps)
        instance.quest = None
        instance.accepts = {}
        self._post_all(Accept, choice)
        self._accept_here(instance, choice)
        self._count_accept(instance, self._node, effects)

    def _accept_here(self, instance: Instance, choice: Choice) -> None:
        """Vote for a value."""
        self._keep_ops(instance, choice.ops)
        instance.ballot = instance.accepted = choice.ballot
        instance.phase, instance.void, instance.deps = ACCEPTED, choice.void, choice.deps
        self._dirty[instance] = True

    def _keep_ops(self, instance: Instance, ops: list[Op]) -> None:
        """Operations become known."""
        if ops and not instance.ops:
            instance.ops = ops
            self._known.add(ops, instance.row, instance.number)

    def _accept(self, source: int, choices: list[Choice]) -> None:
        for choice in choices:
            instance = self._find(choice.row, choice.number)
            if instance is None or choice.ballot < instance.ballot:
                continue
            if instance.phase >= COMMITTED:
                self._post(source, Commit, instance.choice(whole=True))
            elif choice.void or choice.ops or instance.ops:
                if choice.ballot > instance.ballot:
                    instance.promise(choice.ballot)
                if instance.phase != ACCEPTED or instance.accepted < choice.ballot:
                    self._accept_here(instance, choice)
                answer = (choice.row, choice.number, choice.ballot)
                self._post(source, Accepted, answer)

    def _accepted(
        self, source: int, instances: list[tuple[int, int, int]], effects: list[Effect]
    ) -> None:
        for row, number, ballot in instances:
            instance = self._find(row, number)
            if instance is not None and instance.ballot == ballot:
                self._count_accept(instance, source, effects)

    def _count_accept(self, instance: Instance, node: int, effects: list[Effect]) -> None:
        if instance.accepts is None or instance.phase != ACCEPTED:
            return
        instance.accepts[node] = True
        if len(instance.accepts) >= self._quorum:
            # In ballot 0 the operations are on their way already.
            self._post_all(Commit, instance.choice(whole=instance.ballot > 0))
            self._learn(instance.choice(whole=True), effects)
