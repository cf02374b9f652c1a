"""Two scenarios that the rules of Raft's elections exist for, each beside twins without the rule.

Figure 8 of the paper: an entry of an earlier term may be on a majority and still be lost, so it
must not count as committed before an entry of the leader's own term is. Pre-vote (section 9.6 of
the dissertation): a node that was cut off comes back without deposing a leader that is well;
and it can be turned off. The range from which election time-outs are drawn can be chosen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from machine_bench import Bench, Wanted, among, everything
from raft_watch import RaftWatch, votes_among
from twins_raft import CommitsOldTerms

from orchestrator.config.load import load_mapping
from orchestrator.core.machine import OK, READ, WRITE, Effect, Op
from orchestrator.errors import ConfigError
from orchestrator.protocols._raft_election import (
    CANDIDATE,
    ELECTION,
    FOLLOWER,
    HEARTBEAT,
    LEADER,
    Ballot,
    VoteRequest,
)
from orchestrator.protocols._raft_log import Append
from orchestrator.protocols.raft import Params, Raft

PARAMS = Params(election_timeout=1000, heartbeat=100, in_flight=4)
AS_IN_THE_PAPER = replace(PARAMS, pre_vote=False)
FIRST, SECOND = b"first", b"second"


class NoPreVote(Raft):
    """Stands in a new term at once."""

    def _campaign(
        self, now_ns: int, effects: list[Effect], *, pre: bool = True, transfer: bool = False
    ) -> None:
        super()._campaign(now_ns, effects, pre=False)


class GrantsAnyVote(Raft):
    """Encourages and elects every candidate, even while it hears its leader."""

    def _led(self, now_ns: int) -> bool:
        return False


def started(
    machine: type[Raft], nodes: int, watch: RaftWatch | None = None, params: Params = PARAMS
) -> Bench:
    """Node 0 leads in term 1, everybody has committed its first entry."""
    bench = Bench(machine, params, nodes, watch=watch)
    bench.deliver()
    beat(bench)
    assert bench.machines[0].role == LEADER
    assert [each.commit for each in bench.machines] == [1] * nodes
    return bench


def beat(bench: Bench, wanted: Wanted = everything, *, leader: int = 0) -> None:
    """One heartbeat of the leader."""
    bench.fire(leader, HEARTBEAT)
    bench.deliver(wanted)


def stand(bench: Bench, node: int, wanted: Wanted = everything) -> None:
    """Everybody loses patience and ``node`` stands until it leads or has failed twice.

    It may have to hear of the present term first.
    """
    for _ in range(2):
        if bench.machines[node].role != LEADER:
            bench.now_ns += 10 * PARAMS.election_timeout
            bench.fire(node, ELECTION)
            bench.deliver(wanted)


# --- figure 8 ---------------------------------------------------------------------------


def old_entries_alone(bench: Bench, node: int) -> Wanted:
    """Among nodes 0, 1 and 2; ``node`` gets of the leader what earlier terms left, no more."""

    def wanted(source: int, target: int, message: Any) -> bool:
        new = isinstance(message, Append) and message.entries_term == message.term
        fits = new and bench.machines[node].log.last >= message.prev_index
        return among(0, 1, 2)(source, target, message) and not (target == node and fits)

    return wanted


def until_a_majority_has_it(bench: Bench, *, own_entry_arrives: bool = False) -> Any:
    """(a) to (c) of the figure, with one term less each; returns the handle of the write.

    The write of term 1 is at last on nodes 0, 1 and 2. ``own_entry_arrives``: the leader's
    entry of term 3, which (c) keeps from node 2, reaches it, too: this is (e).
    """
    handle = bench.request(0, Op(1, 1, WRITE, b"k", FIRST))
    bench.deliver(among(0, 1))  # (a): on 0 and 1; their answers say so, but two are too few
    assert [each.log.last for each in bench.machines] == [2, 2, 1, 1, 1]
    stand(bench, 4, votes_among([2, 3, 4]))  # (b): term 2 begins among those who lack it
    bench.request(4, Op(2, 1, WRITE, b"k", SECOND))
    bench.wire.clear()
    bench.crash(4)
    beat(bench, among(0, 2))  # (c): node 0 hears of term 2, and stands again
    stand(bench, 0, among(0, 1, 2) if own_entry_arrives else old_entries_alone(bench, 2))
    assert bench.machines[0].role == LEADER and bench.machines[0].term == 3
    assert [each.log.last for each in bench.machines[3:]] == [1, 3]
    assert all(each.log.ops[1].value == FIRST for each in bench.machines[:3])
    return handle


def then_the_other_returns(bench: Bench) -> None:
    """(d): the leader is gone, and node 4 stands with the entry of term 2."""
    bench.crash(0)
    bench.restart(4)
    stand(bench, 4, among(2, 3, 4))
    if bench.machines[4].role == LEADER:
        beat(bench, among(2, 3, 4), leader=4)  # and all learn what it has committed


def committed_value(bench: Bench, node: int) -> bytes | None:
    """What a node would answer to a read of the key."""
    assert bench.machines[node].commit >= 2
    return bytes(bench.machines[node].contents()[b"k"].value)


def test_an_old_entry_on_a_majority_is_not_committed_by_counting() -> None:
    bench = started(Raft, 5, RaftWatch())
    handle = until_a_majority_has_it(bench)
    assert bench.machines[0].commit == 1
    assert handle not in bench.replies
    then_the_other_returns(bench)
    assert bench.machines[4].role == LEADER and bench.machines[4].term == 4
    assert [committed_value(bench, node) for node in (2, 3, 4)] == [SECOND] * 3
    assert handle not in bench.replies, "nobody was promised what is lost now"


def test_counting_copies_of_old_entries_loses_an_acknowledged_write() -> None:
    bench = started(CommitsOldTerms, 5)
    handle = until_a_majority_has_it(bench)
    assert bench.machines[0].commit == 2
    assert bench.replies[handle].outcome == OK
    assert committed_value(bench, 0) == FIRST
    then_the_other_returns(bench)
    assert [committed_value(bench, node) for node in (2, 3, 4)] == [SECOND] * 3


def test_the_watch_sees_the_lost_entry() -> None:
    bench = started(CommitsOldTerms, 5, RaftWatch())
    until_a_majority_has_it(bench)
    with pytest.raises(AssertionError, match="leader 4 of term 4 lacks committed entry 2"):
        then_the_other_returns(bench)


def test_an_entry_of_the_own_term_commits_the_old_one_for_good() -> None:
    bench = started(Raft, 5, RaftWatch())
    handle = until_a_majority_has_it(bench, own_entry_arrives=True)
    assert bench.machines[0].commit == 3
    assert bench.replies[handle].outcome == OK
    then_the_other_returns(bench)
    assert bench.machines[4].role == FOLLOWER
    stand(bench, 2, among(1, 2, 3, 4))
    assert bench.machines[2].role == LEADER
    reading = bench.request(2, Op(3, 1, READ, b"k"))
    bench.deliver(among(1, 2, 3, 4))
    assert bench.replies[reading].value == FIRST


# --- pre-vote ---------------------------------------------------------------------------


def cut_off_and_back(machine: type[Raft], *, writes: bool, params: Params = PARAMS) -> Bench:
    """Node 2 is alone for ten of its timeouts, and stands once more when the network is whole.

    With ``writes`` it has missed some. Nodes 0 and 1 are well all the time.
    """
    bench = started(machine, 3, params=params)
    for number in range(1, 11):
        bench.fire(2, ELECTION)
        bench.deliver(among())
        if writes:
            bench.request(0, Op(number, 1, WRITE, b"k", b"%d" % number))
        beat(bench, among(0, 1))
    # Its timer is sooner than the first heartbeat that reaches it, and the others just had one.
    bench.now_ns = bench.timers[2, ELECTION]
    beat(bench, among(0, 1))
    bench.fire(2, ELECTION)
    bench.deliver()
    return bench


@pytest.mark.parametrize("writes", [False, True])
def test_a_node_that_returns_does_not_disturb_a_healthy_leader(writes: bool) -> None:
    bench = cut_off_and_back(Raft, writes=writes)
    assert [each.term for each in bench.machines] == [1, 1, 1]
    assert [each.role for each in bench.machines] == [LEADER, FOLLOWER, FOLLOWER]
    assert all(request.pre for request in bench.sent[-20:] if isinstance(request, VoteRequest))
    beat(bench)
    handle = bench.request(0, Op(50, 1, WRITE, b"k", FIRST))
    bench.deliver()
    assert bench.replies[handle].outcome == OK
    beat(bench)
    assert [each.leader for each in bench.machines] == [0, 0, 0]
    assert [committed_value(bench, node) for node in bench.nodes] == [FIRST] * 3


@pytest.mark.parametrize("writes", [False, True])
def test_without_pre_vote_it_deposes_the_leader(writes: bool) -> None:
    bench = cut_off_and_back(NoPreVote, writes=writes)
    # The first of eleven times its timer only catches up with the last append that it had.
    # The others hear their leader and do not listen, until the leader itself is told the term.
    assert [each.term for each in bench.machines] == [1, 1, 11]
    beat(bench)
    assert [each.term for each in bench.machines] == [11, 1, 11]
    assert [each.role for each in bench.machines] == [FOLLOWER, FOLLOWER, CANDIDATE]


def test_a_voter_that_hears_its_leader_must_refuse() -> None:
    """The log of a node that missed nothing is no reason against it; the leader is."""
    bench = cut_off_and_back(GrantsAnyVote, writes=False)
    assert [each.term for each in bench.machines] == [2, 2, 2]
    assert bench.machines[0].role == FOLLOWER and bench.machines[2].role == LEADER


def test_standing_in_vain_leaves_no_trace_on_the_disk() -> None:
    bench = started(Raft, 3)
    before = len(bench.records[2])
    for _ in range(10):
        bench.fire(2, ELECTION)
        bench.deliver(among())
    assert len(bench.records[2]) == before
    assert bench.machines[2].term == 1


def test_pre_vote_does_not_keep_a_dead_leader_in_office() -> None:
    bench = started(Raft, 3, RaftWatch())
    bench.crash(0)
    stand(bench, 2)
    assert bench.machines[2].role == LEADER and bench.machines[2].term == 2
    ballots = [record for record in bench.records[1] if isinstance(record, Ballot)]
    assert (ballots[-1].term, ballots[-1].vote) == (2, 2)


# --- elections without pre-vote, as in the paper ----------------------------------------


def test_elections_of_the_paper_elect() -> None:
    bench = started(Raft, 3, RaftWatch(), AS_IN_THE_PAPER)
    bench.crash(0)
    stand(bench, 2)
    assert bench.machines[2].role == LEADER and bench.machines[2].term == 2
    assert not any(request.pre for request in bench.sent if isinstance(request, VoteRequest))


def test_in_the_paper_who_returns_with_the_whole_log_leads_at_once() -> None:
    """Its voter has just heard the leader, and elects it all the same."""
    bench = cut_off_and_back(Raft, writes=False, params=AS_IN_THE_PAPER)
    assert [each.term for each in bench.machines] == [11, 11, 11]
    assert [each.role for each in bench.machines] == [FOLLOWER, FOLLOWER, LEADER]


def test_in_the_paper_who_returns_having_missed_writes_only_deposes_the_leader() -> None:
    bench = cut_off_and_back(Raft, writes=True, params=AS_IN_THE_PAPER)
    assert [each.term for each in bench.machines] == [11, 11, 11]
    assert [each.role for each in bench.machines] == [FOLLOWER, FOLLOWER, CANDIDATE]


def test_a_lease_needs_the_refusals() -> None:
    system = {"protocol": {"name": "raft", "reads": "lease", "pre_vote": False}}
    with pytest.raises(ConfigError, match="lease holds only while who hears the leader refuses"):
        load_mapping({"system": system})
    for reads, pre_vote in (("lease", True), ("read_index", False), ("log", False)):
        system = {"protocol": {"name": "raft", "reads": reads, "pre_vote": pre_vote}}
        load_mapping({"system": system})


def test_in_the_paper_who_was_removed_unheard_disturbs_no_more_than_once() -> None:
    """The paper's section 6: it stands again and again, unless the next leader tells it."""
    bench = started(Raft, 4, RaftWatch(), AS_IN_THE_PAPER)
    bench.admin(0, "remove", 3)
    bench.deliver(among(0, 1, 2))
    beat(bench, among(0, 1, 2))
    assert [each.members.current for each in bench.machines] == [(0, 1, 2)] * 3 + [(0, 1, 2, 3)]
    bench.fire(3, ELECTION)
    bench.deliver()
    if bench.machines[3].term == 1:  # its timer has only caught up with the last append
        bench.fire(3, ELECTION)
        bench.deliver()
    assert bench.machines[0].role == FOLLOWER
    stand(bench, 1)
    beat(bench, leader=1)
    assert bench.machines[1].role == LEADER
    assert bench.machines[3].members.current == (0, 1, 2)
    term = bench.machines[1].term
    for _ in range(3):
        bench.fire(3, ELECTION)
        bench.deliver()
    assert (bench.machines[1].role, bench.machines[1].term) == (LEADER, term)


# --- the range of time-outs -------------------------------------------------------------


def patience_ns(params: Params, seed: int = 1) -> list[int]:
    """What a node that hears nobody drew for each of many elections in which it stood."""
    bench = Bench(Raft, params, 3, seed=seed)
    bench.wire.clear()
    drawn = []
    for _ in range(200):
        bench.fire(1, ELECTION)
        bench.wire.clear()
        drawn.append(bench.timers[1, ELECTION] - bench.now_ns)
    return drawn


@pytest.mark.parametrize("longest", [1000, 1004, 2500])
def test_time_outs_are_drawn_from_the_whole_range(longest: int) -> None:
    drawn = patience_ns(replace(PARAMS, election_timeout_max=longest))
    assert min(drawn) >= 1000 and max(drawn) <= longest
    reach = longest - 1000
    assert min(drawn) <= 1000 + reach // 20 and max(drawn) >= longest - reach // 20


def test_time_outs_are_drawn_up_to_the_double_unless_it_is_said() -> None:
    drawn = patience_ns(PARAMS)
    assert drawn == patience_ns(replace(PARAMS, election_timeout_max=2000))
    assert max(drawn) > 1900
    assert drawn != patience_ns(PARAMS, seed=2)


def test_the_range_has_to_be_one() -> None:
    protocol = {"name": "raft", "election_timeout": "150ms"}
    for longest in ("149ms", "0s"):
        system = {"protocol": protocol | {"election_timeout_max": longest}}
        with pytest.raises(ConfigError, match="election_timeout_max must be at least"):
            load_mapping({"system": system})
    load_mapping({"system": {"protocol": protocol | {"election_timeout_max": "150ms"}}})
