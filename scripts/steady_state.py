"""How well warm-ups are found, and how often a queue is said to drift: the figures of
docs/validity.md. ``python scripts/steady_state.py`` takes about a minute.

Queues are M/M/1 by Lindley's recursion, with service times of 1 ms; those below saturation are
looked at only after they have run for a while.
"""

from __future__ import annotations

from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.analysis.steady_state import BLOCKS, drift, mser5, warmup
from orchestrator.core.randomness import block_stream
from orchestrator.core.units import NS_PER_MS, NS_PER_S

RUNS: Final = 400
BEFORE_S: Final = 10
LOADS: Final = (
    (0.5, 2), (0.9, 2), (0.9, 10), (0.95, 5), (0.95, 20), (0.95, 60), (0.98, 5), (1.05, 10),
    (1.05, 30), (1.1, 10), (1.2, 2), (1.2, 5),
)  # fmt: skip
TRANSIENTS: Final = ((0.5, 0.02), (1.0, 0.02), (1.0, 0.1), (3.0, 0.1), (3.0, 0.2))
TRANSIENT_RUNS: Final = 50
OPERATIONS: Final = 10_000

_Times = NDArray[numpy.int64]


def queue(load: float, seconds: float, before_s: float, number: int) -> tuple[_Times, _Times]:
    """When operations came, and how long they stayed, in ns."""
    chance = block_stream(number, f"queue/{load}/{seconds}")
    count = int(load * 1000 * (seconds + before_s) * 1.2) + 50
    gap, service = chance.exponential(1 / load, count), chance.exponential(1.0, count)
    walk = numpy.concatenate([[0.0], numpy.cumsum(service[:-1] - gap[1:])])
    stayed_ns = (walk - numpy.minimum.accumulate(walk) + service) * NS_PER_MS
    at_ns = numpy.cumsum(gap) * NS_PER_MS - before_s * NS_PER_S
    there = (at_ns >= 0) & (at_ns < seconds * NS_PER_S)
    return at_ns[there].astype(numpy.int64), stayed_ns[there].astype(numpy.int64)


def drifts(load: float, seconds: float, number: int) -> bool:
    """Whether the latency of a queue is said to drift."""
    at_ns, stayed_ns = queue(load, seconds, BEFORE_S if load < 1 else 0, number)
    block = at_ns * BLOCKS // int(seconds * NS_PER_S)
    sizes = numpy.bincount(block, minlength=BLOCKS)
    found = drift(numpy.bincount(block, stayed_ns, minlength=BLOCKS) / numpy.maximum(sizes, 1))
    return found is not None and found.sure


def errors(amount: float, lasts: float) -> tuple[float, float]:
    """Mean error of the mean latency, uncut and cut, of transients to a level of 1 ms."""
    place = numpy.arange(OPERATIONS) / OPERATIONS
    uncut, cut = [], []
    for number in range(TRANSIENT_RUNS):
        noise = block_stream(number, f"{amount}/{lasts}").exponential(NS_PER_MS, OPERATIONS)
        values = ((1 + amount * numpy.exp(-place / lasts)) * noise).astype(numpy.int64)
        uncut.append(values.mean() / NS_PER_MS - 1)
        cut.append(values[warmup(values, OPERATIONS // 3) :].mean() / NS_PER_MS - 1)
    return float(numpy.mean(uncut)), float(numpy.mean(cut))


def main() -> None:
    """Print all figures."""
    for load, seconds in LOADS:
        share = sum(drifts(load, seconds, number) for number in range(RUNS)) / RUNS
        print(f"M/M/1 at {load:g} for {seconds} s: {share:.1%} of runs drift")
    for amount, lasts in TRANSIENTS:
        uncut, cut = errors(amount, lasts)
        print(f"transient {amount:g} for {lasts:g}: {uncut:.1%} uncut, {cut:.1%} cut")
    for seconds in (5, 15, 30):
        means = []
        for number in range(RUNS):
            stayed_ns = queue(0.9, seconds, 0, number)[1]
            most = len(stayed_ns) // 3
            cuts = (0, mser5(stayed_ns, most), warmup(stayed_ns, most))
            means.append([stayed_ns[cut:].mean() / NS_PER_MS for cut in cuts])
        plain, mser, found = numpy.mean(means, axis=0)
        print(
            f"M/M/1 at 0.9 from empty for {seconds} s, mean 10 ms: {plain:.2f} ms uncut, "
            f"{mser:.2f} ms by MSER-5, {found:.2f} ms where the beginning must differ"
        )


if __name__ == "__main__":
    main()
