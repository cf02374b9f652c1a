"""The driver's side of faults on Ray: it asks the plan what is due and has it carried out.

Processes are killed and stopped by their supervisors; links, clocks and storage suffer inside the
processes, which are told. A fault that could not be carried out makes the run's figures worth
nothing, so it counts as a lost part.

Actors have several threads, so what is asked of one at a time happens in any order. What is asked
of one party therefore waits until what was asked of it before is done.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from typing import Any, Final, assert_never

from orchestrator.core.fault_conditions import (
    Action,
    Burden,
    Crash,
    CrashClient,
    Disturb,
    Pause,
    Reappear,
    Restart,
    Resume,
    ReviveClient,
    Vanish,
    in_turns,
)
from orchestrator.core.faults import NodeState
from orchestrator.core.record import EventRecord
from orchestrator.core.units import NS_PER_S
from orchestrator.errors import EnvironmentFailure
from orchestrator.runtimes._member import Member, gather
from orchestrator.runtimes._parts import Parts, cluster_state, fault_plan
from orchestrator.systems.replicated_store import MEASURED

ROLE_S: Final = 0.5
"""A node that does not say by then what its role is counts as having none."""
ACTION_S: Final = 30.0
"""Within which a fault must have been carried out: a node may have to be started again."""
IDLE_S: Final = 0.2


class Conductor:
    """Strikes until :meth:`heal`. Times are of the run, by the driver's clock."""

    def __init__(
        self, parts: Parts, nodes: Sequence[Member], clients: Sequence[Member], origin_ns: int
    ) -> None:
        self.plan = fault_plan(parts)
        self.events: list[EventRecord] = []
        self.problems: list[str] = []
        self._parts = parts
        self._nodes = nodes
        self._clients = clients
        self._origin_ns = origin_ns
        self._over = threading.Event()
        self._crashes = 0
        self._told = itertools.count()
        self._thread = threading.Thread(target=self._conduct, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Strike no more."""
        self._over.set()
        self._thread.join(2 * ACTION_S)
        if self._thread.is_alive():
            self.problems.append(f"faults: not done {2 * ACTION_S:.0f} s after the load")

    def heal(self) -> None:
        """End all faults; what can come back is back."""
        self.stop()
        self._attempt(self.plan.heal(self._now_ns()))

    def down(self, node: int) -> bool:
        """Whether a fault keeps the node down."""
        return self.plan.keeps_down(node)

    def _now_ns(self) -> int:
        return time.monotonic_ns() - self._origin_ns

    def _conduct(self) -> None:
        try:
            self._strike()
        except Exception as error:
            # Nobody sees what a thread raises, and the faults that were to come do not.
            self.problems.append(f"faults ended early: {type(error).__name__}: {error}")

    def _strike(self) -> None:
        while not self._over.is_set():
            left_s = (self.plan.next_wake_ns - self._now_ns()) / NS_PER_S
            if left_s > 0:
                self._over.wait(min(left_s, IDLE_S))
                continue
            state = cluster_state(self._parts, self._roles())
            self._attempt(self.plan.wake(self._now_ns(), state))

    def _roles(self) -> dict[int, str]:
        asked = {
            node: member.call("role", timeout_s=ROLE_S)
            for node, member in enumerate(self._nodes)
            if not self.plan.silent(node)
        }
        members = [self._nodes[node] for node in asked]
        answers = gather(members, list(asked.values()), 2 * ROLE_S, "asking for a role")
        return {
            node: answer
            for node, answer in zip(asked, answers, strict=True)
            if not isinstance(answer, EnvironmentFailure)
        }

    # --- actions --------------------------------------------------------------------------

    def _attempt(self, actions: Sequence[Action]) -> None:
        for turn in in_turns(actions):
            begun = [each for action in turn for each in self._begin(action)]
            members, references = [member for member, _ in begun], [each for _, each in begun]
            for answer in gather(members, references, ACTION_S, "carrying out a fault"):
                if isinstance(answer, EnvironmentFailure):
                    self.problems.append(str(answer))

    def _begin(self, action: Action) -> list[tuple[Member, Any]]:
        """Who carries it out, and Ray's references to that."""
        match action:
            case Vanish(node) | Reappear(node):
                return self._tell_clients(type(action).__name__.lower(), node)
            case CrashClient(client):
                return [(self._clients[client], self._clients[client].call("crash_client"))]
            case ReviveClient(client):
                return [(self._clients[client], self._clients[client].call("revive_client"))]
            case Disturb(party, links):
                member = self._nodes[party] if party >= 0 else self._clients[-1 - party]
                return [self._afflict(member, "disturb", dict(links))]
            case Burden(node, state):
                return self._burden(self._nodes[node], state)
            case _:
                return [self._begin_life(action)]

    def _tell_clients(self, name: str, node: int) -> list[tuple[Member, Any]]:
        if node >= self._parts.reachable:
            return []  # clients do not know the authority
        return [(client, client.call(name, node)) for client in self._clients]

    def _begin_life(self, action: Crash | Restart | Pause | Resume) -> tuple[Member, Any]:
        """A process ends, comes back, stops or goes on."""
        member = self._nodes[action.node]
        what = type(action).__name__.lower()
        self.events.append(EventRecord(self._now_ns(), action.node, what, ""))
        match action:
            case Crash(node, power, gone):
                self._crashes += 1
                chance = f"{self._parts.config.seed}/node/{node}/crash/{self._crashes}"
                return member, member.actor.crash.remote(power, gone, chance)
            case Restart():
                return member, member.actor.restart.remote()
            case Pause():
                return member, member.actor.pause.remote()
            case Resume():
                return member, member.actor.resume.remote()
            case _:
                assert_never(action)

    def _burden(self, member: Member, state: NodeState) -> list[tuple[Member, Any]]:
        burdened = []
        # What takes the time that it takes can only be given less of it.
        if self._parts.costs == MEASURED:
            burdened.append((member, member.actor.slow_down.remote(state.slowness)))
        if self._parts.system.emulated:
            burdened.append(self._afflict(member, "burden", state))
        return burdened

    def _afflict(self, member: Member, name: str, argument: Any) -> tuple[Member, Any]:
        return member, member.actor.afflict.remote(next(self._told), name, argument)
