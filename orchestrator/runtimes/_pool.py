"""The warm actors that runs are made of, over the hosts of a cluster.

Before each run the pool looks at what it has: actors that died are replaced, hosts that have
fallen silent are left out, and hosts that have joined are used. Whatever a run still holds by
then is its own.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from orchestrator.errors import ClusterLost, EnvironmentFailure, PartLost
from orchestrator.runtimes._heartbeat import Heartbeat
from orchestrator.runtimes._member import LOOK_S, Member, gather
from orchestrator.runtimes._placement import placed, turned

PLACE_S: Final = 8.0
"""On a host that is well and has room, placing takes milliseconds."""
ACTOR_START_S: Final = 60.0
ANOTHER_START_S: Final = 20.0
"""Where other hosts can do its work, a host is not waited for that long."""
HEAD_S: Final = 10.0
ALIVE_S: Final = 10.0
"""Within which an actor that is well says so."""
DOUBT_S: Final = 60.0
"""How long a host is left out on which nothing could be started."""
CLOSE_S: Final = 10.0
CONCURRENCY: Final = 8
"""Calls that an actor serves at a time: a fault strikes while a client finishes its load."""
ACTOR_CPUS: Final = 0.01
"""Actors only supervise; what runs where is decided by the pool."""
_NODE_ID: Final = "ray.io/node-id"


class HostWarning(UserWarning):
    """A host of the cluster is not used."""


def known_hosts() -> list[dict[str, Any]]:
    """Ray's description of every host that is or was in the cluster, by address.

    Raises ClusterLost where the head does not answer: Ray itself asks it for a minute and ends
    the process then.
    """
    import ray

    answer: list[list[dict[str, Any]]] = []
    ask: Callable[[], list[dict[str, Any]]] = ray.nodes
    asking = threading.Thread(target=lambda: answer.append(ask()), daemon=True)
    asking.start()
    asking.join(HEAD_S)
    if not answer:
        raise ClusterLost(
            f"the head of the Ray cluster does not answer within {HEAD_S:.0f} s",
            hint="what is finished is kept: start it again, and the same command goes on",
        )
    return sorted(answer[0], key=lambda node: (node["NodeManagerAddress"], node["NodeID"]))


def alive_hosts() -> list[dict[str, Any]]:
    """Those that are up. Raises as :func:`known_hosts`."""
    return [host for host in known_hosts() if host["Alive"]]


def _addresses() -> dict[str, str]:
    """Ray's name of a host -> the address that processes there bind to and are reached at.

    That is the address by which the cluster knows the host; where the cluster is this machine
    alone, nothing need be reachable from outside. The driver's own host comes last: nodes had
    better be where nothing else works.
    """
    import ray

    hosts = alive_hosts()
    here = ray.get_runtime_context().get_node_id()
    if len(hosts) == 1 and hosts[0]["NodeID"] == here:
        return {here: "127.0.0.1"}
    # The head of a cluster may be there for its own sake alone.
    working = [host for host in hosts if host["Resources"].get("CPU")]
    if not working:
        raise EnvironmentFailure(
            "no host of the cluster has a CPU to give", hint="start Ray with --num-cpus above 0"
        )
    working.sort(key=lambda host: bool(host["NodeID"] == here))
    return {host["NodeID"]: host["NodeManagerAddress"] for host in working}


@dataclass
class _Batch:
    """Actors that were started on a host together, within a placement group of their own."""

    host_id: str
    group: Any
    members: list[Member] = field(default_factory=list)


class Pool:
    """Actors by host. ``actor_class``: what they are.

    ``turn``: of several pools in one cluster, each begins with another host. ``only``: the address
    of the one host that is used (None: all are).
    """

    def __init__(self, actor_class: type[Any], turn: int = 0, only: str | None = None) -> None:
        self._actor_class = actor_class
        self._turn, self._only = turn, only
        self._batches: list[_Batch] = []
        self._heartbeat = Heartbeat()
        self._doubted_s: dict[str, float] = {}

    def members(
        self, nodes: int, clients: int, repeat: int = 0
    ) -> tuple[list[Member], list[Member]]:
        """An actor for each node and each client of a run; missing ones are started. Repeats of a
        run, counted from 0, go to the hosts in turn.

        Raises EnvironmentFailure where no host is left on which actors can be started.
        """
        self._drop_lost()
        while True:
            addresses = self._usable()
            first = self._turn % len(addresses)
            hosts = turned([*addresses][first:] + [*addresses][:first], nodes, repeat)
            of_nodes, of_clients = placed(hosts, nodes, clients)
            missing = Counter(of_nodes + of_clients)
            for batch in self._batches:
                missing[batch.host_id] -= len(batch.members)
            failed = self._start(+missing, addresses)
            if not failed:
                break
            if set(failed) >= set(addresses):
                raise next(iter(failed.values()))
            self._doubt(failed, addresses)
        free: dict[str, list[Member]] = {}
        for batch in self._batches:
            # A cluster of one host may have grown: its address is no longer the loopback's.
            address = addresses.get(batch.host_id, "")
            there = [replace(member, host=address) for member in batch.members]
            free.setdefault(batch.host_id, []).extend(there)
        return [free[host].pop(0) for host in of_nodes], [free[host].pop(0) for host in of_clients]

    def close(self) -> None:
        """End all actors and what they hold."""
        self._heartbeat.close()
        members = [member for batch in self._batches for member in batch.members]
        gather(members, [member.actor.close.remote() for member in members], CLOSE_S, "closing")
        # Without a head nobody could be told, and whoever left the cluster takes its actors along.
        with suppress(ClusterLost):
            alive_hosts()
            for batch in self._batches:
                self._end(batch, batch.members)
        self._batches.clear()

    # --- hosts ----------------------------------------------------------------------------

    def _usable(self) -> dict[str, str]:
        """Addresses of the hosts that answer."""
        known = _addresses()
        if self._only is not None and len(known) > 1:
            known = {host: at for host, at in known.items() if at == self._only}
        silent = [host for host in known if self._heartbeat.silent(host)]
        now_s = time.monotonic()
        doubted = [host for host, since_s in self._doubted_s.items() if now_s < since_s + DOUBT_S]
        usable = {host: known[host] for host in known if host not in (*silent, *doubted)}
        if not usable:
            raise PartLost("no host of the cluster answers", hint="archbench doctor looks at it")
        return usable

    def _doubt(
        self, failed: Mapping[str, EnvironmentFailure], addresses: Mapping[str, str]
    ) -> None:
        """Leave hosts out for a while on which nothing could be started, and say so."""
        for host, error in failed.items():
            self._doubted_s[host] = time.monotonic()
            text = f"host {addresses[host]} is left out for {DOUBT_S:.0f} s: {error}"
            warnings.warn(text, HostWarning, stacklevel=3)

    def _drop_lost(self) -> None:
        """Forget actors that died or do not answer; end what may be left of them."""
        members = [member for batch in self._batches for member in batch.members]
        asked = [member.actor.well.remote() for member in members]
        answers = gather(members, asked, ALIVE_S, "looking after an actor")
        lost = {
            id(member)
            for member, answer in zip(members, answers, strict=True)
            if answer is not True
        }
        if not lost:
            return
        known_hosts()  # Ray would wait for a head that is gone, and end the process then
        for batch in self._batches:
            self._end(batch, [member for member in batch.members if id(member) in lost])
        self._batches = [batch for batch in self._batches if batch.members]

    def _end(self, batch: _Batch, members: Sequence[Member]) -> None:
        """End some of a batch, and its group with the last of them; Ray is not waited for."""
        import ray
        from ray.util.placement_group import remove_placement_group

        for member in members:
            with suppress(ray.exceptions.RayError, ValueError):
                ray.kill(member.actor)
        batch.members = [member for member in batch.members if member not in members]
        if not batch.members:
            with suppress(ray.exceptions.RayError, ValueError):
                remove_placement_group(batch.group)

    # --- starting -------------------------------------------------------------------------

    def _start(
        self, missing: Mapping[str, int], addresses: Mapping[str, str]
    ) -> dict[str, EnvironmentFailure]:
        """Start so many actors on each host, all at once; returns the hosts that failed."""
        limit_s = ACTOR_START_S if len(addresses) == 1 else ANOTHER_START_S
        batches = [self._batch(host, count) for host, count in missing.items()]
        failed = self._place(batches, addresses)
        started = [batch for batch in batches if batch.host_id not in failed]
        for batch in started:
            host_id = batch.host_id
            gone = partial(self._gone, host_id)
            actors = [self._actor(batch, index) for index in range(missing[host_id])]
            batch.members = [Member(each, addresses[host_id], host_id, "", gone) for each in actors]
        members = [member for batch in started for member in batch.members]
        asked = [member.actor.ready.remote() for member in members]
        answers = iter(gather(members, asked, limit_s, "starting an actor"))
        for batch in started:
            said = [next(answers) for _ in batch.members]
            error = next((each for each in said if isinstance(each, EnvironmentFailure)), None)
            if error is not None:
                failed[batch.host_id] = error
                self._end(batch, batch.members)
            else:
                self._take(batch, [fact["clock"] for fact in said])
        return failed

    def _place(
        self, batches: Sequence[_Batch], addresses: Mapping[str, str]
    ) -> dict[str, EnvironmentFailure]:
        """Wait until there is room for each batch on its host; returns the hosts without."""
        import ray

        deadline_s = time.monotonic() + PLACE_S
        failed: dict[str, EnvironmentFailure] = {}
        for batch in batches:
            ready = False
            with suppress(ray.exceptions.RayError):
                while not (ready := batch.group.wait(LOOK_S)):
                    if time.monotonic() > deadline_s or self._gone(batch.host_id):
                        break
            if not ready:
                reason = "does not answer" if self._gone(batch.host_id) else "has no room"
                failed[batch.host_id] = PartLost(
                    f"placing on {addresses[batch.host_id]}: it {reason}"
                )
                self._end(batch, ())
        return failed

    def _gone(self, host_id: str) -> bool:
        """Whether a host answers neither us nor Ray."""
        if self._heartbeat.silent(host_id):
            return True
        return all(host["NodeID"] != host_id for host in alive_hosts())

    def _take(self, batch: _Batch, clocks: Sequence[str]) -> None:
        """Its actors are ready: they are of the pool, and their host is watched."""
        import ray

        is_silent = partial(self._heartbeat.silent, batch.host_id)
        was_silent = partial(self._heartbeat.silent_since, batch.host_id)
        batch.members = [
            replace(member, clock=clock, is_silent=is_silent, was_silent=was_silent)
            for member, clock in zip(batch.members, clocks, strict=True)
        ]
        self._batches.append(batch)
        if batch.host_id != ray.get_runtime_context().get_node_id():
            self._heartbeat.watch(batch.host_id, [member.actor for member in batch.members])

    def _batch(self, host_id: str, count: int) -> _Batch:
        from ray.util.placement_group import placement_group

        bundles = [{"CPU": ACTOR_CPUS}] * count
        selectors = [{_NODE_ID: host_id}] * count
        group = placement_group(bundles, strategy="PACK", bundle_label_selector=selectors)
        return _Batch(host_id, group)

    def _actor(self, batch: _Batch, index: int) -> Any:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        remote: Any = ray.remote(num_cpus=ACTOR_CPUS, max_restarts=0)(self._actor_class)
        return remote.options(
            max_concurrency=CONCURRENCY,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                placement_group=batch.group, placement_group_bundle_index=index
            ),
        ).remote()
