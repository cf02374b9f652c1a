"""No rule of the verdict fires where nothing is wrong; scripts/good_runs.py has all fifty runs."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "good_runs.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("good_runs_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["good_runs_script"] = module
    spec.loader.exec_module(module)
    return module


def test_some_good_runs_are_valid(script: Any) -> None:
    """One protocol, half of the arrivals and loads."""
    some = itertools.islice(script.configs(), 20, 30, 2)
    wrong = {label: script.verdict(config) for label, config in some}
    assert len(wrong) == 5 and sum(map(bool, wrong.values())) <= 1, wrong


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_fifty_good_runs_are_valid(script: Any) -> None:
    wrong = {label: script.verdict(config) for label, config in script.configs()}
    assert len(wrong) == 50
    assert sum(map(bool, wrong.values())) <= script.WRONG_MAX, wrong
