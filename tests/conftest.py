"""What all tests share: the package without an installation, and one way to generate cases."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# The same cases on every machine and in every process: a red test stays red. No deadline,
# because a busy machine must not fail a test of values.
settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")
