"""Where the attempts of an operation are: which node is asked, which others have it, and what is
told to whoever judges nodes when an attempt ends.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

from orchestrator.core.load import OVERTAKEN, REFUSED, SENT, Word
from orchestrator.core.machine import READING
from orchestrator.core.waiting import Tie
from orchestrator.runtimes._agenda import AGAIN, NO_WAKE, Agenda
from orchestrator.runtimes._attempts import UNLIMITED, Attempts
from orchestrator.runtimes._port import Port
from orchestrator.runtimes._routing import Router
from orchestrator.runtimes._session import Session

RETRY_NS: Final = 5_000_000
"""Pause before an operation asks again while no node is known to serve it."""


class Sending:
    """One client's attempts under way."""

    def __init__(
        self, router: Router, port: Port, *, warmup_ns: int, again: Attempts | None
    ) -> None:
        self.router = router
        self._port = port
        self._agenda = Agenda()
        self._wake_ns = 0  # the runtime polls first at the start of the load
        self._warmup_ns = warmup_ns
        self._final_ns = NO_WAKE
        self._again = again
        self._ties = again is not None and again.ties
        self._most = UNLIMITED
        """How much may be under way now."""
        if again is not None:
            again.remind = self._remind
            self._most = again.most
        self.extra_attempts = 0
        """Of the operations of the measured window, beyond one each; less those never sent."""

    @abstractmethod
    def _missed(self, session: Session, wait_ns: int, now_ns: int) -> bool:
        """Nothing came of an attempt; whether the operation goes on."""

    def _wake_by(self, when_ns: int) -> None:
        if when_ns < self._wake_ns:
            self._wake_ns = when_ns
            self._port.wake_at(when_ns)

    def _remind(self, due_ns: int, session: Session, what: int) -> None:
        self._agenda.remind(due_ns, session, what)
        self._wake_by(due_ns)

    def _is_measured(self, session: Session) -> bool:
        """Whether its operation is one of the measured window."""
        return self._warmup_ns <= session.due_ns < self._final_ns

    # --- out ------------------------------------------------------------------------------

    def _send(self, session: Session, now_ns: int, *, hedging: bool = False) -> None:
        """One attempt; a hedge is one beside what is out, and so is the second of two copies."""
        if not hedging:
            node = self.router.pick(session, now_ns)
        elif self._ties:
            node = session.tied
        else:
            node = self.router.pick(session, now_ns, another=True)
        if node >= 0 and (
            self._submit_tied(session, node, now_ns, hedging)
            if self._ties
            else session.port.submit(session, node)
        ):
            if self._again is not None:
                self._again.sent(session, now_ns, hedging=hedging)
                if session.attempt > 1:
                    self.extra_attempts += self._is_measured(session)
            session.target = node
            session.sent_ns = now_ns
            session.out = True
            self.router.observe(node, SENT, 0, now_ns)
        elif hedging:
            pass  # the first attempt goes on
        elif node < 0:
            session.attempt += 1
            self._missed(session, 0, now_ns)
        else:
            self.router.unreached(session, node, now_ns)
            self._remind(now_ns + RETRY_NS, session, AGAIN)

    def _submit_tied(self, session: Session, node: int, now_ns: int, second: bool) -> bool:
        """One of two copies of a read, where there is another node for the other."""
        if second:
            return session.port.submit_tied(session, node, Tie(session.target, session.pair))
        session.tied = -1
        other = -1
        if session.op.kind in READING:
            asked, session.target = session.target, node
            other = self.router.pick(session, now_ns, another=True)
            session.target = asked
        if other < 0:
            return session.port.submit(session, node)
        session.pair += 1
        if not session.port.submit_tied(session, node, Tie(other, session.pair)):
            return False
        session.tied = other
        return True

    # --- ended ----------------------------------------------------------------------------

    def _came_to_nothing(
        self, session: Session, what: int, now_ns: int, source: int, word: Word | None = None
    ) -> bool:
        """An attempt has ended without an answer; whether another is out, or is to be."""
        insists = self._again is not None
        if insists:
            self._turn_to(session, source)
        late = insists and not session.out
        self._ended(session, what, now_ns, word)
        if session.tied >= 0 and what != REFUSED:
            # The node had begun, perhaps, and told the other to drop its copy.
            self._leave(session, OVERTAKEN, now_ns)
        return self._promote(session) or late

    def _turn_to(self, session: Session, source: int) -> None:
        """What follows is about the attempt at this node (-1: the last)."""
        if source in (-1, session.target):
            return
        if session.out:
            session.others[session.target] = session.sent_ns
        session.target = source
        # Else it has had its time before.
        session.out = source in session.others
        if session.out:
            session.sent_ns = session.others.pop(source)

    def _promote(self, session: Session) -> bool:
        """Whether another attempt is still out, which is turned to."""
        if not session.others:
            return False
        session.target, session.sent_ns = session.others.popitem()
        session.out = True
        return True

    def _leave(self, session: Session, what: int, now_ns: int) -> None:
        """Nobody waits any more for the other attempts."""
        for node, sent_ns in session.others.items():
            self.router.observe(node, what, now_ns - sent_ns, now_ns)
        session.others.clear()

    def _ended(self, session: Session, what: int, now_ns: int, word: Word | None = None) -> None:
        """What is out at a node, if anything still is, has ended."""
        if session.out:
            session.out = False
            self.router.observe(session.target, what, now_ns - session.sent_ns, now_ns)
        if word is not None:
            self.router.balancer.hear(session.target, *word, now_ns)
