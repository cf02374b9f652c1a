"""A tier node asks the store, as a client would: it follows redirects, asks others while nobody is
known to serve, and asks again what was not answered and may be asked twice.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Final

from orchestrator.core.cluster_views import ClusterViews
from orchestrator.core.machine import READ, Effect, Op, Send, SetTimer
from orchestrator.core.tier import REDIRECTED, Answer, Ask, TierContext
from orchestrator.core.units import NS_PER_MS

TIMER: Final = "asks"
_PAUSE_NS: Final = 5 * NS_PER_MS
"""Before it is asked again who serves."""
_DOUBLINGS: Final = 3
"""Of the pause before a silent store is asked again: rarely enough not to feed an overload, and
often enough to go on soon after an outage.
"""


@dataclass(slots=True)
class Asked:
    """What the store was asked, ``since_ns``; ``due_ns``: when to see to it again; ``unheard``: how
    often it was asked without an answer.
    """

    op: Op
    since_ns: int
    node: int
    due_ns: int
    unheard: int = 0


class Asker:
    """What is asked of the store, by number."""

    def __init__(self, context: TierContext, resend_ns: int) -> None:
        self._context = context
        self._resend_ns = resend_ns
        self._asked: dict[int, Asked] = {}
        self._due: list[tuple[int, int]] = []
        self._armed_ns: int | None = None
        self._number = 0
        self._turn = context.node
        self._views = ClusterViews(context.first_view, context.group_of)

    def begin(self, now_ns: int) -> None:
        """Numbers go on where those before a restart cannot have come."""
        self._number = max(0, now_ns)

    def ask(self, op: Op, now_ns: int, effects: list[Effect]) -> int:
        """Have the operation carried out; returns the number of what is asked."""
        self._number += 1
        number = self._number
        self._asked[number] = Asked(op, now_ns, 0, 0)
        self._send(number, self._asked[number], now_ns, effects)
        return number

    def forget(self, number: int) -> None:
        """Nobody wants to know any more."""
        self._asked.pop(number, None)

    def answered(
        self, source: int, answer: Answer, now_ns: int, effects: list[Effect]
    ) -> Asked | None:
        """What was asked, if this answers it; None where it was answered or somebody else is to be
        asked.
        """
        asked = self._asked.get(answer.number)
        if asked is None:
            return None
        if answer.outcome != REDIRECTED:
            del self._asked[answer.number]
            return asked
        if answer.node >= 0:
            self._views.learn(asked.op, answer.node)
            self._send(answer.number, asked, now_ns, effects)
        else:
            self._views.pass_over(asked.op, source)
            asked.unheard = 0
            self._later(answer.number, asked, now_ns + _PAUSE_NS, now_ns, effects)
        return None

    def see_to(self, now_ns: int, effects: list[Effect]) -> None:
        """Ask again what is due."""
        self._armed_ns = None
        while self._due and self._due[0][0] <= now_ns:
            due_ns, number = heapq.heappop(self._due)
            asked = self._asked.get(number)
            if asked is None or asked.due_ns != due_ns:
                continue
            if asked.unheard:
                self._views.pass_over(asked.op, asked.node)
            self._send(number, asked, now_ns, effects)
        self._arm(now_ns, effects)

    def _send(self, number: int, asked: Asked, now_ns: int, effects: list[Effect]) -> None:
        asked.node = self._pick(asked.op)
        effects.append(Send(asked.node, Ask(number, asked.op)))
        if asked.op.kind == READ or self._context.known_again:
            # Twice as long each time: where answers are late, asking more makes them later.
            wait_ns = self._resend_ns << min(asked.unheard, _DOUBLINGS)
            self._later(number, asked, now_ns + wait_ns, now_ns, effects)
        asked.unheard += 1

    def _later(
        self, number: int, asked: Asked, due_ns: int, now_ns: int, effects: list[Effect]
    ) -> None:
        asked.due_ns = due_ns
        heapq.heappush(self._due, (due_ns, number))
        self._arm(now_ns, effects)

    def _arm(self, now_ns: int, effects: list[Effect]) -> None:
        due, asked = self._due, self._asked
        while due and due[0][1] not in asked:
            heapq.heappop(due)
        if due and (self._armed_ns is None or due[0][0] < self._armed_ns):
            self._armed_ns = due[0][0]
            effects.append(SetTimer(TIMER, due[0][0] - now_ns))

    # --- whom to ask ----------------------------------------------------------------------

    def _pick(self, op: Op) -> int:
        """Those that may serve it take turns."""
        candidates = self._context.candidates(op, self._views.of(op))
        self._turn += 1
        return candidates[self._turn % len(candidates)]
