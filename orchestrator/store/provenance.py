"""Where a figure came from: code, packages, machine and cluster of a run."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import socket
import subprocess
from typing import Any, Final

PACKAGES: Final = (
    "archbench",
    "duckdb",
    "fsspec",
    "hdrhistogram",
    "hiredis",
    "jinja2",
    "msgspec",
    "numpy",
    "omegaconf",
    "optuna",
    "pyarrow",
    "ray",
    "rich",
    "scipy",
    "seaborn",
    "typer",
    "uvloop",
)
GIT_TIMEOUT_S: Final = 5.0


def collect(ray_nodes: int | None = None, ray_cpus: float | None = None) -> dict[str, Any]:
    """The provenance columns of ``runs``, taken at the start of a run.

    ``ray_nodes`` and ``ray_cpus`` are the shape of the cluster, None in sim. ``started_utc`` is
    text in ISO 8601, so that the result may travel as JSON.
    """
    return {
        "git_commit": git_commit(),
        "package_versions": dict(package_versions()),
        "host": socket.gethostname(),
        "cpu_model": cpu_model(),
        "cpu_count": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "ray_nodes": ray_nodes,
        "ray_cpus": ray_cpus,
        "started_utc": datetime.datetime.now(datetime.UTC).isoformat(),
    }


def git_commit(folder: str = ".") -> str | None:
    """The commit checked out in ``folder``, with ``-dirty`` where tracked files differ.

    None outside a repository, before its first commit and without git.
    """
    command = ["git", "-C", folder, "--no-optional-locks", "describe"]
    command += ["--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


@functools.cache
def package_versions() -> tuple[tuple[str, str], ...]:
    """(distribution, version) of the main dependencies that are installed."""
    found = []
    for name in PACKAGES:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(found)


@functools.cache
def cpu_model() -> str:
    """The processor's name, the architecture where the system does not tell it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
