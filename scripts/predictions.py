"""Whether the simulator foretells real runs: ``python scripts/predictions.py [NAME ...]``.

Calibrates this host, then runs every variant below (or those named) in both runtimes: its capacity
under a closed load, and its latency at shares of that. Writes docs/prediction.md. Takes forty
minutes on a host that has nothing else to do; figures are of that host.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scipy.stats import spearmanr

from orchestrator.calibrate import PROTOCOLS, Calibration, calibrate
from orchestrator.config.load import ConfigSource
from orchestrator.config.profile import read_profile, write_profile
from orchestrator.predict import CAPACITY, Point, predict
from orchestrator.run import Runner

PAGE = Path(__file__).resolve().parent.parent / "docs" / "prediction.md"
LOADS: Final = (0.5, 0.8, 0.9)
SECONDS: Final = 10
REPEATS: Final = 3
"""Of variants with measured costs: their figures are the host's, and it changes by the second."""
RATE: Final = "throughput_ops"
LATENCIES: Final = {"p50": "latency_ms.all.p50", "p99": "latency_ms.all.p99"}
EXPONENTIAL: Final = "exponential"


@dataclass(frozen=True)
class Variant:
    """One row; ``lone``: no more processes than cores, so that latencies are looked at, too."""

    name: str
    protocol: str
    replicas: int
    measured: bool = False
    lone: bool = True
    mix: str = "a"
    node: tuple[tuple[str, Any], ...] = ()
    cache: int | None = None
    sessions: int = 32

    @property
    def calibrated(self) -> bool:
        """Whether runs like this were part of the calibration."""
        return self.measured and self.protocol in PROTOCOLS and self.cache is None

    def mapping(self) -> dict[str, Any]:
        """The config as plain data."""
        node: dict[str, Any] = {"costs": "measured"} if self.measured else {}
        node |= dict(self.node)
        system: dict[str, Any] = {
            "protocol": {"name": self.protocol},
            "replicas": self.replicas,
            "node": node,
        }
        if not self.measured:
            system["network"] = {"delay": "300us"}
        # The simulator knows no kernel that moves processes about.
        pinned = {"hosts": {"pin": True}} if self.measured else {}
        if self.cache is not None:
            system["cache"] = {"name": "lru", "size": self.cache}
        return {
            "experiment": "prediction",
            "system": system,
            "workload": {"name": "ycsb", "mix": self.mix, "keys": 2000},
            "arrival": {"name": "closed", "sessions": self.sessions},
            "client": {"timeout": "5s"},
            "warmup": "1s",
            "duration": f"{SECONDS}s",
            "check": {"level": "none"},
        } | pinned


def costs(operation_us: int, message_us: int, **node: Any) -> tuple[tuple[str, Any], ...]:
    """Modelled costs of a node: exponential for operations, constant for messages."""
    law = {"name": EXPONENTIAL, "mean": f"{operation_us}us"}
    cpu = {"read": law, "write": law, "message": f"{message_us}us"}
    return tuple(({"cpu": cpu} | node).items())


_DISK: Final = {"read": {"name": EXPONENTIAL, "mean": "4ms"}, "parallel": 2}
_DURABLE: Final = {"durability": "fsync"}
VARIANTS: Final = (
    Variant("one node", "unreplicated", 1, node=costs(1000, 0)),
    Variant("one node of two cores", "unreplicated", 1, node=costs(2000, 0, cores=2)),
    Variant(
        "one node, cache and disk", "unreplicated", 1, mix="b", cache=600,
        node=costs(300, 0, storage=_DISK),
    ),
    Variant("Raft of 3", "raft", 3, node=costs(600, 100)),
    Variant("Raft of 5", "raft", 5, mix="b", node=costs(1000, 100)),
    Variant("primary and 2 backups", "primary_backup", 3, node=costs(600, 100)),
    Variant("chain of 3", "chain", 3, node=costs(800, 150)),
    # Of many messages an operation: at half the cost two cores cannot emulate them in time.
    Variant("quorum of 3", "quorum", 3, node=costs(1600, 200)),
    Variant("one process", "unreplicated", 1, measured=True, mix="b", sessions=8),
    Variant("one process, durable", "unreplicated", 1, measured=True, node=(("storage", _DURABLE),),
            sessions=8),
    Variant("one process with a cache", "unreplicated", 1, measured=True, mix="b", cache=600,
            sessions=8),
    Variant("3 processes of Raft", "raft", 3, measured=True, lone=False),
    Variant("3 processes of a chain", "chain", 3, measured=True, lone=False, sessions=16),
    Variant("3 processes of Multi-Paxos", "multi_paxos", 3, measured=True, lone=False),
    Variant("5 processes of Raft", "raft", 5, measured=True, lone=False, mix="b"),
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What both runtimes say of a variant."""

    variant: Variant
    points: tuple[Point, ...]

    def ratio(self, point: Point, name: str) -> float:
        """Simulated over real."""
        found = point.effects[name].ratio
        assert found is not None
        return found


def measure(variant: Variant, runner: Runner, profile: str) -> Found:
    """Both runtimes, at all loads."""
    done = predict(
        ConfigSource.of(variant.mapping()),
        runner,
        profile=profile,
        repeats=REPEATS if variant.measured else 1,
        loads=LOADS if variant.lone else (),
        sessions=variant.sessions,
        told=lambda point, runtime, summary: print(
            f"{variant.name}, {point}, {runtime}: {summary['throughput_ops']:,.0f}/s,"
            f" p50 {summary['latency_ms']['all']['p50']} ms,"
            f" p99 {summary['latency_ms']['all']['p99']} ms"
            f" {summary['invalid_reasons'] or ''}",
            file=sys.stderr,
        ),
    )
    return Found(variant, done.points)


def rows(found: Sequence[Found]) -> tuple[list[str], int, int]:
    """Lines of the table; how many figures are within their bound, and of how many."""
    lines, held, count = [], 0, 0
    for each in found:
        for index, point in enumerate(each.points):
            cells, judged = _cells(each, point, [RATE] if index == 0 else [*LATENCIES.values()])
            held, count = held + sum(judged), count + len(judged)
            load = CAPACITY if index == 0 else point.name.removesuffix(" of it")
            utilisation = point.as_json()["utilisation"]
            busy = "" if utilisation is None else f"{utilisation:.0%}"
            name = "" if index else _described(each.variant)
            lines.append(f"| {name} | {load} | {busy} | {' | '.join(cells)} |")
    return lines, held, count


def _cells(each: Found, point: Point, names: Sequence[str]) -> tuple[list[str], list[bool]]:
    measured = each.variant.measured
    allowed = {RATE: 0.2 if measured else 0.1}
    allowed |= dict.fromkeys(LATENCIES.values(), 0.3 if measured else 0.15)
    cells, judged = [], []
    for name in allowed:
        if name not in names:
            cells.append("")
            continue
        if name not in point.effects:
            # Too few independent operations lie beyond it, in one runtime at least.
            cells.append("withheld")
            continue
        ratio, interval = each.ratio(point, name), point.effects[name].interval
        judged.append(abs(ratio - 1) <= allowed[name])
        around = "" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"
        missed = "" if judged[-1] else " **missed**"
        if not all(run["valid"] for run in point.runs[1]):
            around += " †"
        cells.append(f"{point.effects[name].base:,.4g}: {ratio:.3f}{around}{missed}")
    return cells, judged


def _described(variant: Variant) -> str:
    kind = "measured" if variant.measured else "modelled"
    return f"{variant.name} ({kind}{'' if variant.calibrated else ', new'})"


def _left_out(found: Sequence[Found]) -> str:
    """How many pairs were, of how many."""
    points = [point for each in found for point in each.points]
    used = sum(len(point.runs[1]) for point in points)
    out = sum(len(point.left_out) for point in points)
    return f"{out} of {used + out} pairs"


def correlation(found: Sequence[Found]) -> float:
    """Spearman's, of the simulated and the real capacities."""
    first = [each.points[0].effects[RATE] for each in found]
    simulated, real = [each.candidate for each in first], [each.base for each in first]
    return float(spearmanr(simulated, real).statistic)


def page(found: Sequence[Found], calibration: Calibration) -> str:
    """The text of docs/prediction.md."""
    lines, held, count = rows(found)
    profile = calibration.profile
    return f"""# Does the simulator foretell real runs?

`python scripts/predictions.py` measured a host of {profile.cores} cores
({profile.cpu}) on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}: its profile explains the CPU time
of {calibration.observations} processes to {calibration.residual:.0%} (root mean square of the
relative errors). Then it ran each variant below in both runtimes, with the same seed, for
{SECONDS} s a run, with measured costs {REPEATS} times: the capacity under a closed load, and where
latencies are looked at, p50 and p99 under Poisson arrivals at shares of the simulated capacity. Of
processes with measured costs that is where no more of them run than there are cores: else who runs
when is the kernel's choice. Those keep to one core each (`hosts.pin`). Of each real run the
simulation was told what a fixed loop took in each process meanwhile, since the cores of this host
are up to 1.8 times as fast at one time as at another. A pair whose real run was not valid by its
own verdict was made again with another seed and left out ({_left_out(found)}); where none was
valid, all count, and a dagger says so.

A cell holds the real figure (operations/s, or ms; the mean of several runs) and the simulated one
over it (the geometric mean of their ratios, and its 95 % interval). Within the bounds are {held} of
{count} figures: 10 % of the capacity and 15 % of latencies with modelled costs, 20 % and 30 % with
measured ones. The order of the variants by capacity has a rank correlation of
{correlation(found):.3f}. *new*: the calibration saw no run like it.

| variant | load | busiest resource | capacity | p50 | p99 |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(lines)}

What the simulator leaves out shows here: who else runs on the host, how the kernel deals out cores
and for how long, caches of the processor, and pauses of the machine itself. A stall of some
milliseconds is nothing to a node that takes a millisecond an operation, and the whole 99th
percentile of one that takes 20 us.
"""


def main() -> int:
    """Calibrate, run, write the page."""
    parser = argparse.ArgumentParser(description="Whether the simulator foretells real runs.")
    parser.add_argument("names", nargs="*", help="variants; default: all, and the page is written")
    parser.add_argument("--profile", help="a file that was written before, instead of measuring")
    options = parser.parse_args()
    chosen = [each for each in VARIANTS if not options.names or each.name in options.names]
    with tempfile.TemporaryDirectory() as folder:
        path = options.profile or f"{folder}/host.yaml"
        if options.profile is None:
            (calibration, *_) = calibrate(told=lambda text: print(text, file=sys.stderr))
            write_profile(calibration.profile, path)
        else:
            calibration = Calibration("", read_profile(path), float("nan"), 0)
        with Runner(f"{folder}/results") as runner:
            found = [measure(variant, runner, path) for variant in chosen]
    text = page(found, calibration)
    if not options.names and options.profile is None:
        PAGE.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
