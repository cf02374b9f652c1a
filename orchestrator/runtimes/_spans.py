"""Sampled operations at a client: how the parts of each are put together.

Every attempt of a sampled operation is a *leg*, from its sending to the node's answer, which brings
along what its stay at the node went into; the rest of a leg is the network's. The leg that brought
the answer counts, and before it those that were over when the next was sent: a redirection, a
refusal, a look-up in a cache tier. All other time of the operation is waiting at the client, hence
``queue``: late sending, pauses before retries, attempts that were lost, or overtaken by hedges. So
the parts add up to the latency whatever happened.

A client's :class:`ClientSpans` are the port of sessions whose operation is sampled, and take what
came of it, so that other sessions' operations cost what they cost without it.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core.machine import OK, READ, UNMATCHED
from orchestrator.core.spans import Span, Spans, Stay
from orchestrator.core.waiting import Tie
from orchestrator.runtimes._port import Leg, Port
from orchestrator.runtimes._sampling import Sampling
from orchestrator.runtimes._session import ROW, Row, Session

_SESSION, _SEQUENCE, _KIND, _INTENDED, _INVOKED, _RETURNED, _OUTCOME = (
    ROW.index(name)
    for name in (
        "session", "sequence", "kind", "intended_ns", "invoked_ns", "returned_ns", "outcome",
    )
)  # fmt: skip


class _Open:
    """A sampled operation under way: its session, its place in the sample, its legs by number, and
    those that were answered, in that order.
    """

    __slots__ = ("heard", "legs", "place", "session")

    def __init__(self, session: Session, place: int) -> None:
        self.session = session
        self.place = place
        self.legs: list[Leg] = []
        self.heard: list[tuple[int, int, Stay]] = []


class ClientSpans:
    """One client's: the port of sessions whose operations are sampled, and what takes their rows.

    ``port`` and ``record`` are those of all others.
    """

    def __init__(self, port: Port, record: Callable[[Row], None], sampling: Sampling) -> None:
        self.sampling = sampling
        self._inner, self._record = port, record
        self.ask, self.wake_at = port.ask, port.wake_at
        self._open: dict[int, _Open] = {}
        self._found: list[tuple[int, Span]] = []

    def follow(self, session: Session, place: int) -> None:
        """The operation that the session is about to begin is sampled."""
        session.port, session.record = self, self._take
        self._open[session.identity] = _Open(session, place)

    def found(self) -> Spans:
        """All that were answered."""
        keeps = self.sampling.keeps
        return Spans.of([span for place, span in self._found if keeps(place)])

    # --- out ------------------------------------------------------------------------------

    def submit(self, session: Session, node: int) -> bool:
        return self._inner.submit_sampled(session, node, None, self._leg(session))

    def submit_tied(self, session: Session, node: int, tie: Tie) -> bool:
        return self._inner.submit_sampled(session, node, tie, self._leg(session))

    def submit_sampled(self, session: Session, node: int, tie: Tie | None, leg: Leg) -> bool:
        return self._inner.submit_sampled(session, node, tie, leg)

    def _leg(self, session: Session) -> Leg:
        legs = self._open[session.identity].legs
        leg = Leg(len(legs))
        legs.append(leg)
        return leg

    # --- in -------------------------------------------------------------------------------

    def heard(self, session: Session, sequence: int, stay: Stay, now_ns: int) -> None:
        """An answer of any kind comes, before the generator hears of it."""
        opened = self._open.get(session.identity)
        if opened is None or session.sequence != sequence or stay.number >= len(opened.legs):
            return
        sent_ns = opened.legs[stay.number].sent_ns
        # A node that tells of more time than has passed is not believed.
        if min(stay) >= 0 and stay.total_ns <= now_ns - sent_ns:
            opened.heard.append((sent_ns, now_ns, stay))

    def _take(self, row: Row) -> None:
        self._record(row)
        opened = self._open.pop(row[_SESSION])
        session, place = opened.session, opened.place
        session.port, session.record = self._inner, self._record
        if row[_OUTCOME] not in (OK, UNMATCHED) or not self.sampling.keeps(place):
            return
        span = _span(row, opened)
        if span is not None:
            self._found.append((place, span))
        if session.follow_up != READ and row[_OUTCOME] == OK:
            self.follow(session, place)


def _span(row: Row, opened: _Open) -> Span | None:
    """None where the node did not say what its stay went into."""
    returned_ns, total_ns = row[_RETURNED], row[_RETURNED] - row[_INTENDED]
    cpu_ns = storage_ns = network_ns = others_ns = 0
    if not opened.legs:
        # Out of the client's own cache.
        storage_ns = returned_ns - row[_INVOKED]
    elif not opened.heard or opened.heard[-1][1] != returned_ns:
        return None
    queue_ns = total_ns - storage_ns
    before_ns = returned_ns
    for sent_ns, heard_ns, stay in reversed(opened.heard):
        if heard_ns > before_ns:
            continue
        before_ns = sent_ns
        queue_ns -= heard_ns - sent_ns - stay.queue_ns
        cpu_ns += stay.cpu_ns
        storage_ns += stay.cache_storage_ns
        others_ns += stay.replication_ns
        network_ns += heard_ns - sent_ns - stay.total_ns
    return Span(
        row[_SESSION], row[_SEQUENCE], row[_KIND], row[_INTENDED],
        queue_ns, cpu_ns, storage_ns, network_ns, others_ns,
    )  # fmt: skip
