"""Latency from the intended start, in mergeable histograms.

An operation's latency runs from when the schedule wanted it to start, so a stalled server is
charged for everyone who would have come meanwhile (Gil Tene, "How NOT to Measure Latency",
2013: coordinated omission). The uncorrected figure beside it runs from when the connection
was free, which is what a closed tool would have seen.

Histograms are HdrHistogram's with three significant digits: a quantile is the upper end of
its bucket, so at most 0.1 % above the true order statistic and never below it; counts,
maximum and mean are exact; merging adds counts and so loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Final

import numpy
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from orchestrator.analysis.effective import effective_beyond, withheld
from orchestrator.core.history import NEVER, History
from orchestrator.core.machine import KIND_NAMES, OK, READ, SCAN, WRITE
from orchestrator.core.record import RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S

_ALWAYS: Final = (READ, WRITE, SCAN)
ALL: Final = "all"
SIGNIFICANT_DIGITS: Final = 3
HIGHEST_NS: Final = 24 * 3600 * NS_PER_S
"""Longer latencies are counted as this one."""

QUANTILES: Final = {"p50": 500, "p90": 900, "p99": 990, "p999": 999}
"""Name -> thousandths, integers so that ranks are exact."""


class LatencyHistogram:
    """Counts of latencies by HDR bucket; ``total_ns`` is their exact sum."""

    def __init__(self) -> None:
        self._adopt(HdrHistogram(1, HIGHEST_NS, SIGNIFICANT_DIGITS))
        self.total_ns = 0

    def _adopt(self, histogram: Any) -> None:
        self.histogram = histogram
        # A view: the histogram's own counters, readable without a Python loop.
        self._counts: NDArray[numpy.uint64] = numpy.ctypeslib.as_array(histogram.counts)

    @staticmethod
    def of(latency_ns: NDArray[numpy.int64]) -> LatencyHistogram:
        """The histogram of an array of latencies."""
        histogram = LatencyHistogram()
        histogram.record(latency_ns)
        return histogram

    @staticmethod
    def merged(parts: Iterable[LatencyHistogram]) -> LatencyHistogram:
        """A new histogram of everything that the parts hold; exact."""
        whole = LatencyHistogram()
        for part in parts:
            longest_ns = max(whole.histogram.max_value, part.histogram.max_value)
            whole.histogram.add(part.histogram)
            whole.histogram.max_value = longest_ns  # add() rounds it up to its bucket's end
            whole.total_ns += part.total_ns
        return whole

    def record(self, latency_ns: NDArray[numpy.int64]) -> None:
        """Add an array of latencies; negative ones count as 0, too long ones as HIGHEST_NS."""
        if not len(latency_ns):
            return
        clipped = numpy.clip(latency_ns, 0, HIGHEST_NS)
        counts = numpy.bincount(self._bucket_index(clipped))
        for index in numpy.flatnonzero(counts).tolist():
            lowest_ns = self.histogram.get_value_from_index(index)
            self.histogram.record_value(lowest_ns, int(counts[index]))
        self.histogram.max_value = max(self.histogram.max_value, int(clipped.max()))
        self.total_ns += int(clipped.sum())

    def _bucket_index(self, values: NDArray[numpy.int64]) -> NDArray[numpy.int64]:
        """HdrHistogram's index of each value, for a lowest trackable value of 1."""
        half_magnitude = self.histogram.sub_bucket_half_count_magnitude
        # frexp's exponent is the bit length, exact below 2^53; the mask keeps it at least
        # that of the first bucket, which is linear.
        masked = values | self.histogram.sub_bucket_mask
        bit_length = numpy.frexp(masked.astype(numpy.float64))[1].astype(numpy.int64)
        bucket = bit_length - half_magnitude - 1
        offset = (values >> bucket) - self.histogram.sub_bucket_half_count
        index: NDArray[numpy.int64] = ((bucket + 1) << half_magnitude) + offset
        return index

    @property
    def count(self) -> int:
        """Latencies recorded."""
        return int(self.histogram.total_count)

    @property
    def max_ns(self) -> int | None:
        """The longest latency; None when empty."""
        return int(self.histogram.max_value) if self.count else None

    @property
    def mean_ns(self) -> float | None:
        """The mean; None when empty."""
        return self.total_ns / self.count if self.count else None

    def quantile_ns(self, thousandths: int) -> int | None:
        """Smallest recorded value with at least that share at or below it; None when empty."""
        if not self.count:
            return None
        reached = numpy.cumsum(self._counts)
        return self._end_ns(int(numpy.searchsorted(reached, _rank(self.count, thousandths))))

    def figures_ms(
        self, effective: Mapping[str, float] | None = None
    ) -> dict[str, int | float | None]:
        """``count``, and in ms ``mean``, ``p50``, ``p90``, ``p99``, ``p999``, ``max``.

        All but the count are None when empty, and a percentile where it has too few operations
        beyond it (:mod:`.effective`); ``effective``: how many independent ones it has, by its name.
        """
        figures: dict[str, int | float | None] = {"count": self.count, "mean": ms(self.mean_ns)}
        for name, thousandths in QUANTILES.items():
            known = effective[name] if effective else None
            given = withheld(self.count, thousandths, known) is None
            figures[name] = ms(self.quantile_ns(thousandths)) if given else None
        figures["max"] = ms(self.max_ns)
        return figures

    def buckets(self) -> tuple[list[int], list[int]]:
        """Upper ends of the buckets that hold something, in ns and ascending, and their counts."""
        indices = numpy.flatnonzero(self._counts)
        ends_ns = [self._end_ns(index) for index in indices.tolist()]
        return ends_ns, self._counts[indices].tolist()

    def _end_ns(self, index: int) -> int:
        lowest_ns = self.histogram.get_value_from_index(index)
        highest_ns = int(self.histogram.get_highest_equivalent_value(lowest_ns))
        return min(highest_ns, int(self.histogram.max_value))

    def encode(self) -> str:
        """HdrHistogram's compressed V2 payload in base64, which its tools of any language read."""
        return bytes(self.histogram.encode()).decode("ascii")

    @staticmethod
    def decode(payload: str) -> LatencyHistogram:
        """The histogram of a payload: counts and quantiles as they were.

        A payload holds only counts, so maximum and mean are then good to 0.1 %.
        """
        decoded = LatencyHistogram()
        decoded._adopt(HdrHistogram.decode(payload.encode("ascii")))
        for index in numpy.flatnonzero(decoded._counts).tolist():
            lowest_ns = decoded.histogram.get_value_from_index(index)
            highest_ns = decoded.histogram.get_highest_equivalent_value(lowest_ns)
            decoded.total_ns += int(decoded._counts[index]) * ((lowest_ns + highest_ns) // 2)
        return decoded


def _rank(count: int, thousandths: int) -> int:
    return max(1, -(-count * thousandths // 1000))


def quantile_ns(latency_ns: NDArray[numpy.int64], thousandths: int) -> int | None:
    """The exact order statistic of that share; None when there is nothing."""
    if not len(latency_ns):
        return None
    position = _rank(len(latency_ns), thousandths) - 1
    return int(numpy.partition(latency_ns, position)[position])


def ms(duration_ns: float | None) -> float | None:
    """Nanoseconds as milliseconds; None stays None."""
    return None if duration_ns is None else duration_ns / NS_PER_MS


def latencies_ns(history: History, timeout_ns: int) -> NDArray[numpy.int64]:
    """Latency of each row from its intended start, in ns.

    What was not served (``History.service_outcome``) counts at no less than the timeout.
    """
    return _durations_ns(history, history.intended_ns, timeout_ns)


def uncorrected_ns(history: History, timeout_ns: int) -> NDArray[numpy.int64]:
    """Latency of each row from when its connection was free for it, in ns."""
    started_ns = numpy.maximum(history.intended_ns, history.previous_return_ns)
    return _durations_ns(history, started_ns, timeout_ns)


def _durations_ns(
    history: History, started_ns: NDArray[numpy.int64], timeout_ns: int
) -> NDArray[numpy.int64]:
    elapsed_ns = history.returned_ns - started_ns
    succeeded = (history.service_outcome == OK) & (history.returned_ns != NEVER)
    return numpy.where(succeeded, elapsed_ns, numpy.maximum(elapsed_ns, timeout_ns))


@dataclass(frozen=True)
class Window:
    """The measured window [``start_ns``, ``end_ns``) of one run, as columns.

    ``intended_ns``, ``key``, ``kind``, ``outcome`` (the service's), ``unmatched``, ``latency_ns``
    and ``uncorrected_ns`` are of the operations intended within it, in the order of their intended
    starts. ``completed_ns`` (when it returned), ``completed_key``, ``completed_kind`` and
    ``completed_latency_ns`` are of the OK operations that *returned* within it, whenever they were
    intended.
    """

    record: RunRecord
    start_ns: int
    end_ns: int
    intended_ns: NDArray[numpy.int64]
    key: NDArray[numpy.int64]
    kind: NDArray[numpy.uint8]
    outcome: NDArray[numpy.uint8]
    unmatched: NDArray[numpy.bool_]
    latency_ns: NDArray[numpy.int64]
    uncorrected_ns: NDArray[numpy.int64]
    completed_ns: NDArray[numpy.int64]
    completed_key: NDArray[numpy.int64]
    completed_kind: NDArray[numpy.uint8]
    completed_latency_ns: NDArray[numpy.int64]

    @property
    def length_s(self) -> float:
        """Length in seconds."""
        return (self.end_ns - self.start_ns) / NS_PER_S

    def __len__(self) -> int:
        """Operations intended within the window."""
        return len(self.latency_ns)

    @cached_property
    def effective_beyond(self) -> dict[str, float]:
        """How many independent operations lie beyond each of QUANTILES."""
        return effective_beyond(self.latency_ns, QUANTILES)

    def select(self, intended: Any, completed: Any) -> Window:
        """The same window with only these of its operations: masks over its columns."""
        columns = {
            field.name: getattr(self, field.name)[
                completed if field.name.startswith("completed_") else intended
            ]
            for field in fields(self)
            if field.name not in ("record", "start_ns", "end_ns")
        }
        return replace(self, **columns)


def measured_window(record: RunRecord, timeout_ns: int) -> Window:
    """Cut a run's history to its measured window."""
    history, start_ns, end_ns = record.history, record.warmup_ns, record.end_ns
    intended_ns, returned_ns = history.intended_ns, history.returned_ns
    within = numpy.flatnonzero((intended_ns >= start_ns) & (intended_ns < end_ns))
    within = within[numpy.argsort(intended_ns[within], kind="stable")]
    in_time = (returned_ns >= start_ns) & (returned_ns < end_ns)
    outcome = history.service_outcome
    completed = numpy.flatnonzero(in_time & (outcome == OK))
    latency_ns = latencies_ns(history, timeout_ns)
    return Window(
        record=record,
        start_ns=start_ns,
        end_ns=end_ns,
        intended_ns=intended_ns[within],
        key=history.key[within],
        kind=history.kind[within],
        outcome=outcome[within],
        unmatched=history.unmatched[within],
        latency_ns=latency_ns[within],
        uncorrected_ns=uncorrected_ns(history, timeout_ns)[within],
        completed_ns=returned_ns[completed],
        completed_key=history.key[completed],
        completed_kind=history.kind[completed],
        completed_latency_ns=latency_ns[completed],
    )


def histograms(window: Window) -> dict[str, LatencyHistogram]:
    """``all``, ``read``, ``write`` and ``scan`` (empty where there was none), and one of each
    other kind of operation that there was.
    """
    kinds = {
        KIND_NAMES[kind]: LatencyHistogram.of(window.latency_ns[window.kind == kind])
        for kind in sorted({*_ALWAYS, *numpy.unique(window.kind).tolist()})
    }
    return {ALL: LatencyHistogram.merged(kinds.values()), **kinds}


def merge_histograms(parts: Iterable[dict[str, LatencyHistogram]]) -> dict[str, LatencyHistogram]:
    """Name by name, over clients or repeats."""
    listed = list(parts)
    names = dict.fromkeys(name for part in listed for name in part)
    return {
        name: LatencyHistogram.merged(part[name] for part in listed if name in part)
        for name in names
    }
