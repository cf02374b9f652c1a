"""What one host of a cluster has: sent there by value, since it may not have this package.

Nothing but the standard library is imported outside of what may fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def host_facts(packages: Sequence[str]) -> dict[str, Any]:
    """Facts of the host that this runs on.

    ``packages``: name -> version, None where it is missing. ``importable``: whether this package
    is. ``timer_ns``: median and p99 of how late short waits end, None without this package.
    """
    import importlib.metadata
    import os
    import platform
    import shutil

    versions: dict[str, str | None] = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": versions,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "shared_bytes": shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0,
        "folder_bytes": shutil.disk_usage(os.environ.get("TMPDIR", "/tmp")).free,
        "importable": False,
        "timer_ns": None,
    }
    try:
        from orchestrator.runtimes._lateness import timer_lateness_ns

        facts["importable"] = True
        late_ns = timer_lateness_ns()
        facts["timer_ns"] = (late_ns[len(late_ns) // 2], late_ns[len(late_ns) * 99 // 100])
    except (ImportError, OSError, TimeoutError) as error:
        facts["why_not"] = f"{type(error).__name__}: {error}"
    return facts
