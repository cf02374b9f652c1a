"""Each rule of views, chains and primary-backup is needed: without it faults break the claims."""

from __future__ import annotations

import pytest
from sim_faults import configured, problem_of
from twins import Twin
from twins_views import TWINS

from orchestrator.core.units import NS_PER_MS

HARD = {"gap_ns": 40 * NS_PER_MS}
RARE = (
    "primary_backup_any_backup_will_do",
    "primary_backup_any_epoch",
    "primary_backup_breaks_seal",
    "primary_backup_hasty_successor",
    "primary_backup_ignores_lease",
    "chain_any_epoch",
)
"""Those that take more than a dozen seeds."""


def caught(twin: Twin, seeds: range) -> str:
    """What was found wrong first; empty: nothing."""
    problems = (
        problem_of(
            configured(seed, twin.system, *twin.overrides), machine=twin.machine, faults=HARD
        )
        for seed in seeds
    )
    return next((problem for problem in problems if problem), "")


@pytest.mark.parametrize(
    "twin", [twin for twin in TWINS if twin.name not in RARE], ids=lambda twin: twin.name
)
def test_faults_catch_a_twin(twin: Twin) -> None:
    assert caught(twin, range(12)) != "", twin.why


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "twin", [twin for twin in TWINS if twin.name in RARE], ids=lambda twin: twin.name
)
def test_faults_catch_a_rare_twin(twin: Twin) -> None:
    assert caught(twin, range(500)) != "", twin.why
