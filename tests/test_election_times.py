"""How long Raft is without a leader after a crash, against what its paper measured.

Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (extended version),
section 9.3 and figure 16; the trials are those of scripts/elections.py, some dozens of each.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@cache
def crashes() -> Any:
    """The script's module."""
    spec = importlib.util.spec_from_file_location("leader_crashes", SCRIPTS / "_leader_crashes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look for it.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def links() -> Any:
    """As in the script: a broadcast takes some 15 ms."""
    return crashes().Links((2.0, 3.0), (4.0, 14.5))


@cache
def sample(shortest_ms: int, longest_ms: int, count: int = 80) -> NDArray[numpy.float64]:
    """Times without a leader, in ms."""
    time_outs = crashes().TimeOuts(shortest_ms, longest_ms)
    return numpy.array(crashes().downtimes_ms(time_outs, links(), count))


def test_a_broadcast_takes_what_it_took_in_the_paper() -> None:
    assert crashes().broadcast_ms(links(), beats=200) == pytest.approx(15, abs=0.5)


def test_without_randomness_nobody_is_elected() -> None:
    assert numpy.isinf(sample(150, 150, 10)).all()


def test_five_milliseconds_of_randomness_give_the_median_of_the_paper() -> None:
    assert 287 / 1.4 < numpy.median(sample(150, 155)) < 287 * 1.4


def test_fifty_milliseconds_of_randomness_give_the_worst_case_of_the_paper() -> None:
    # Two split votes are rare: some dozens of crashes may see none, and never more.
    assert 150 < sample(150, 200).max() < 513 * 1.4


def test_short_time_outs_give_the_mean_of_the_paper() -> None:
    found = sample(12, 24)
    assert 35 / 1.4 < found.mean() < 35 * 1.4
    assert found.max() < 152 * 1.4


def test_more_randomness_makes_split_votes_rarer() -> None:
    """Without one, a new leader is there a time-out and a broadcast after the crash at the
    latest.
    """
    split = [
        float((sample(150, longest_ms) > longest_ms + 20).mean())
        for longest_ms in (151, 155, 175, 200)
    ]
    assert split == sorted(split, reverse=True)
    assert split[0] > 0.9 and split[-1] < 0.2


def test_nobody_is_elected_sooner_than_half_of_the_shortest_time_out() -> None:
    """Since the crash comes within a heartbeat's interval, which is the other half."""
    for shortest_ms, longest_ms in ((150, 155), (150, 200), (12, 24)):
        assert sample(shortest_ms, longest_ms).min() > shortest_ms / 2
