"""Little's law: L = lambda W, the mean number of operations under way is their rate times their
mean time (Little, Operations Research 9(3), 1961; over finite windows, with what begins before and
ends after counted by what lies inside, it is exact: Little, Operations Research 59(3), 2011).

Both sides are measured apart from each other: L as clients counted it at times drawn beforehand,
lambda W from the history's rows. Where they differ, rows are missing, or times are wrong, or what
a client holds for under way is not. A count stands until the next one: of a client that was kept
from running those that were due meanwhile come all at once, and must not count more for it. An
operation whose answer never came was under way until somewhere between its start and its timeout,
so lambda W is a range there.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy

from orchestrator.analysis.latency import Window
from orchestrator.core.history import NEVER
from orchestrator.core.record import ClientRecord

TOLERANCE: Final = 0.05
"""Of the concurrency; what is less says little about latencies, either."""
DEVIATIONS: Final = 4.0
"""Standard errors that chance may add."""
PROBES_MIN: Final = 50


class Concurrency(NamedTuple):
    """Operations under way on the mean: as counted, with its standard error, and by Little's law
    at least and at most.
    """

    counted: float
    error: float
    least: float
    most: float

    @property
    def allowed(self) -> float:
        """How far they may be apart."""
        return TOLERANCE * max(self.counted, self.least) + DEVIATIONS * self.error


def concurrency(window: Window, timeout_ns: int) -> Concurrency | None:
    """None where a client counted too seldom within the window."""
    found = [_counted(client, window) for client in window.record.clients]
    known = [each for each in found if each is not None]
    if not found or len(known) < len(found):
        return None
    counted, variance = (math.fsum(column) for column in zip(*known, strict=True))
    return Concurrency(counted, math.sqrt(variance), *_by_latency(window, timeout_ns))


def _counted(client: ClientRecord, window: Window) -> tuple[float, float] | None:
    """Mean of one client over the window, and its variance: of a sample that is spread evenly over
    time, by its differences (Wolter, Introduction to Variance Estimation, section 8.2).
    """
    within = (client.probed_ns >= window.start_ns) & (client.probed_ns < window.end_ns)
    counts, at_ns = client.outstanding[within], client.probed_ns[within]
    if len(counts) < PROBES_MIN:
        return None
    shares = numpy.diff(at_ns, append=window.end_ns) / (window.end_ns - at_ns[0])
    variance = float((shares[:-1] ** 2 * numpy.diff(counts) ** 2).sum()) / 2
    return float((counts * shares).sum()), variance


def _by_latency(window: Window, timeout_ns: int) -> tuple[float, float]:
    history = window.record.history
    never = history.returned_ns == NEVER
    start_ns = numpy.maximum(history.invoked_ns, window.start_ns)
    ended_ns = numpy.where(never, history.invoked_ns, history.returned_ns)
    gone_ns = numpy.where(never, history.invoked_ns + timeout_ns, history.returned_ns)
    least, most = (
        float(numpy.maximum(numpy.minimum(each, window.end_ns) - start_ns, 0).sum())
        / (window.end_ns - window.start_ns)
        for each in (ended_ns, gone_ns)
    )
    return least, most


def littles_law_reasons(window: Window, timeout_ns: int) -> list[str]:
    """One sentence where the two sides differ by more than is allowed."""
    found = concurrency(window, timeout_ns)
    if found is None:
        return []
    apart = max(found.least - found.counted, found.counted - found.most)
    if apart <= found.allowed:
        return []
    said = f"{found.least:.2f}"
    if found.most > found.least:
        said += f" to {found.most:.2f}"
    return [
        f"Little's law does not hold: clients counted {found.counted:.2f} operations under way on "
        f"the mean, and the operations' times say {said}; the difference may be at most "
        f"{found.allowed:.2f} ({TOLERANCE:.0%} and chance)"
    ]
