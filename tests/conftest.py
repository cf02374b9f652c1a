"""What all tests share: the package without an installation, one way to generate cases, and a
warm pool of real actors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from orchestrator.runtimes.ray_cluster import RayRuntime

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# The same cases on every machine and in every process: a red test stays red. No deadline,
# because a busy machine must not fail a test of values.
settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")


@pytest.fixture(scope="session")
def joined() -> Iterator[None]:
    """One embedded Ray for all tests of this process that use it, since it takes seconds to start.

    Actors find the machines that tests make.
    """
    from orchestrator.runtimes import ray_cluster

    with pytest.MonkeyPatch.context() as patched:
        path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        patched.setenv("PYTHONPATH", path)
        ray_cluster.connect(None)
    yield
    ray_cluster.disconnect()


@pytest.fixture(scope="module")
def runtime(joined: None) -> Iterator[RayRuntime]:
    """One warm pool for all runs of a module."""
    from orchestrator.runtimes import ray_cluster

    made = ray_cluster.RayRuntime()
    yield made
    made.close()
