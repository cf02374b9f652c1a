"""Generated mutants of the protocols that change what clients see are killed."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
from mutants import GOLDEN, Fate, chosen, fate, mutant, places

from orchestrator.core.registry import Family, plugins

COUNTS = {
    "raft": 40,
    "multi_paxos": 25,
    "chain": 20,
    "craq": 15,
    "primary_backup": 15,
    "epaxos": 25,
    "quorum": 25,
    "abd": 15,
    "causal": 20,
    "gossip": 20,
}
SEEDS = 40
WANTED = 100
KILLED_SHARE = 0.9


def test_a_mutant_is_another_class_and_leaves_the_right_one_alone() -> None:
    machine = plugins(Family.PROTOCOL)["raft"].implementation
    made = mutant("raft", places("raft")[0])
    assert made is not machine
    assert made.__name__ == machine.__name__
    assert plugins(Family.PROTOCOL)["raft"].implementation is machine


def test_what_is_chosen_is_the_same_every_time() -> None:
    assert list(chosen("chain", 5)) == list(chosen("chain", 5))


@pytest.mark.long
@pytest.mark.serial
@pytest.mark.timeout(3600)
def test_mutants_that_change_behaviour_are_killed() -> None:
    asked = [(name, place) for name, count in COUNTS.items() for place in chosen(name, count)]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(fate, name, place, SEEDS) for name, place in asked]
        fates: list[Fate] = [job.result() for job in jobs]
    changed = [each for each in fates if each.changes_behaviour]
    living = [each.mutation for each in changed if not each.killed_by]
    by_property = [each for each in changed if each.killed_by not in ("", GOLDEN)]
    print(
        f"{len(fates)} mutants, {len(changed)} change behaviour, {len(by_property)} break a"
        f" property, {len(changed) - len(living) - len(by_property)} only a golden scenario"
    )
    for mutation in living:
        print(f"lives: {mutation.module}.py:{mutation.line}: {mutation.what}")
    assert len(changed) >= WANTED
    assert len(living) <= (1 - KILLED_SHARE) * len(changed)
