"""Whether intervals hold the truth: ``python scripts/coverage.py [--check]``.

Two hundred simulated runs each of queues whose truth is known (M/M/1: sojourn times are exponential
with mean 1 / (service rate - arrival rate); Kleinrock, Queueing Systems). Of each run the intervals
are those that ``archbench run`` gives. Writes docs/intervals.md; a new run gives the same.
``--check`` says whether the page is current. Takes some minutes.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy

from orchestrator.analysis.intervals import quantile_intervals_ns, throughput_interval_ops
from orchestrator.analysis.latency import measured_window, quantile_ns
from orchestrator.config.load import load_mapping
from orchestrator.core.units import NS_PER_S
from orchestrator.plan import plan
from orchestrator.runtimes import simulated

PAGE = Path(__file__).resolve().parent.parent / "docs" / "intervals.md"
RUNS: Final = 200
SECONDS: Final = 120
SERVICE_PER_S: Final = 1000
LOADS: Final = (0.5, 0.7, 0.8)
QUANTILES: Final = {"p50": 500, "p99": 990}
NAMES: Final = ("throughput", *QUANTILES)
PROCESSES: Final = 2


class Found(NamedTuple):
    """One figure of one run, in operations/s or ns."""

    estimate: float
    low: float
    high: float


class Row(NamedTuple):
    """What 200 runs say of one figure: shares and ratios."""

    load: float
    name: str
    held: float
    width: float
    error: float


def truth(load: float, name: str) -> float:
    """The figure of an endless run."""
    if name == "throughput":
        return load * SERVICE_PER_S
    mean_s = 1 / (SERVICE_PER_S * (1 - load))
    return -math.log(1 - QUANTILES[name] / 1000) * mean_s * NS_PER_S


def measure(job: tuple[float, int]) -> dict[str, Found]:
    """One run."""
    load, seed = job
    config = {
        "seed": seed,
        "runtime": "sim",
        "system": {
            "protocol": {"name": "unreplicated"},
            "node": {"cpu": {"read": {"name": "exponential", "mean": "1ms"}}},
        },
        "workload": {"name": "ycsb", "mix": "c", "keys": 100},
        "arrival": {"name": "poisson", "rate": f"{load * SERVICE_PER_S}/s"},
        "client": {"timeout": "60s"},
        "warmup": "2s",
        "duration": f"{SECONDS}s",
    }
    parts = plan(load_mapping(config))
    window = measured_window(simulated.run(parts), parts.config.client.timeout)
    bounds = throughput_interval_ops(window.completed_ns, window.start_ns, window.end_ns)
    assert bounds is not None
    found = {"throughput": Found(len(window.completed_ns) / window.length_s, *bounds)}
    intervals = quantile_intervals_ns(window.latency_ns, QUANTILES)
    for name, per_mille in QUANTILES.items():
        bounds = intervals[name]
        estimate_ns = quantile_ns(window.latency_ns, per_mille)
        assert bounds is not None and estimate_ns is not None
        found[name] = Found(float(estimate_ns), *bounds)
    return found


def rows(runs: int) -> list[Row]:
    """All loads and figures."""
    jobs = [(load, seed) for load in LOADS for seed in range(1, runs + 1)]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        measured = pool.map(measure, jobs, chunksize=5)
    made = []
    for at, load in enumerate(LOADS):
        for name in NAMES:
            mine = [each[name] for each in measured[at * runs : (at + 1) * runs]]
            made.append(row(load, name, mine))
    return made


def row(load: float, name: str, found: Sequence[Found]) -> Row:
    """How often the truth was held, and how wide intervals were beside the narrowest that would
    hold it in 95 % of all runs: 1.96 standard deviations of what runs find.
    """
    true = truth(load, name)
    estimates = numpy.array([each.estimate for each in found])
    held = sum(each.low <= true <= each.high for each in found) / len(found)
    half = float(numpy.mean([(each.high - each.low) / 2 for each in found]))
    ideal = 1.959964 * float(estimates.std(ddof=1))
    return Row(load, name, held, half / ideal, float(estimates.mean()) / true - 1)


def page(table: Sequence[Row]) -> str:
    """The text of docs/intervals.md."""
    lines = [
        f"| {each.load:g} | {each.name} | {100 * each.held:.1f} % | {each.width:.2f} |"
        f" {100 * each.error:+.2f} % |"
        for each in table
    ]
    return f"""# Do intervals hold the truth?

`python scripts/coverage.py` simulates {RUNS} runs each of one node with Poisson arrivals and
exponential service (M/M/1) for {SECONDS} s at {SERVICE_PER_S:,} operations/s of capacity, so that
the truth is known: sojourn times are exponential with mean 1 / (service rate - arrival rate). Each
run says with its own intervals what it knows; a new run of the script gives the same page.

An interval of 95 % is to hold the truth in 95 of 100 runs, and not by being wide. The ideal
half-width is 1.96 standard deviations of what such runs find, which a single run cannot know.

| load | figure | runs that hold it | half-width over the ideal | mean error |
| --- | --- | --- | --- | --- |
{chr(10).join(lines)}

Operations that follow each other wait for the same queue, the more so the higher the load is: the
interval comes from blocks of the run, never from counting operations as if each were a run of its
own. Where a run is short for its load there are few excursions to learn from, and the interval is
too narrow; longer runs or `--repeat` mend that.
"""


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description="Whether intervals hold the truth.")
    parser.add_argument("--check", action="store_true", help="say whether the page is current")
    check = parser.parse_args().check
    text = page(rows(RUNS))
    if check:
        return 0 if PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
