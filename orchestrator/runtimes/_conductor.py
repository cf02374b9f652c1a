"""The driver's side of faults on Ray: it asks the plan what is due and has it carried out.

Processes are killed and stopped by their supervisors; links, clocks and storage suffer inside the
processes, which are told. A fault that could not be carried out makes the run's figures worth
nothing, so it counts as a lost part.
"""

from __future__ import annotations

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
    Restart,
    Resume,
    ReviveClient,
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
        self._thread = threading.Thread(target=self._conduct, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Strike no more."""
        self._over.set()
        self._thread.join(2 * ACTION_S)

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
        begun = [self._begin(action) for action in actions]
        members, references = [member for member, _ in begun], [each for _, each in begun]
        for answer in gather(members, references, ACTION_S, "carrying out a fault"):
            if isinstance(answer, EnvironmentFailure):
                self.problems.append(str(answer))

    def _begin(self, action: Action) -> tuple[Member, Any]:
        """Who carries it out, and Ray's reference to that."""
        match action:
            case Crash(node, power, gone):
                self._crashes += 1
                self._note(node, "crash")
                chance = f"{self._parts.config.seed}/node/{node}/crash/{self._crashes}"
                member = self._nodes[node]
                return member, member.actor.crash.remote(power, gone, chance)
            case Restart(node):
                self._note(node, "restart")
                return self._nodes[node], self._nodes[node].actor.restart.remote()
            case Pause(node):
                self._note(node, "pause")
                return self._nodes[node], self._nodes[node].actor.pause.remote()
            case Resume(node):
                self._note(node, "resume")
                return self._nodes[node], self._nodes[node].actor.resume.remote()
            case Burden(node, state):
                return self._nodes[node], self._burden(self._nodes[node].actor, state)
            case Disturb(party, links):
                member = self._nodes[party] if party >= 0 else self._clients[-1 - party]
                return member, member.actor.afflict.remote("disturb", dict(links))
            case CrashClient(client):
                return self._clients[client], self._clients[client].call("crash_client")
            case ReviveClient(client):
                return self._clients[client], self._clients[client].call("revive_client")
            case _:
                assert_never(action)

    def _burden(self, actor: Any, state: NodeState) -> Any:
        # What takes the time that it takes can only be given less of it.
        if self._parts.costs == MEASURED:
            slowed = actor.slow_down.remote(state.slowness)
            if not self._parts.system.emulated:
                return slowed
        return actor.afflict.remote("burden", state)

    def _note(self, node: int, what: str) -> None:
        self.events.append(EventRecord(self._now_ns(), node, what, ""))
