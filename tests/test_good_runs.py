"""No rule of the verdict fires where nothing is wrong; scripts/good_runs.py has all fifty runs."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from good_runs import WRONG_MAX, configs, verdict


def test_some_good_runs_are_valid() -> None:
    """One protocol, all arrivals and loads."""
    wrong = {label: verdict(config) for label, config in itertools.islice(configs(), 10, 20)}
    assert sum(map(bool, wrong.values())) <= 1, wrong


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_fifty_good_runs_are_valid() -> None:
    wrong = {label: verdict(config) for label, config in configs()}
    assert len(wrong) == 50
    assert sum(map(bool, wrong.values())) <= WRONG_MAX, wrong
