"""The composition root: configuration and seed to plan, to run, to checked and stored result.

:func:`plan` refuses what cannot run before anything starts, :func:`execute` hands the plan to
its runtime, and a :class:`Runner` judges what came back, stores it and keeps what is worth
keeping between runs: the store and Ray's warm pool of actors.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy

from orchestrator.analysis.latency import histograms, measured_window
from orchestrator.analysis.sample import sampled_rows
from orchestrator.analysis.series import client_series
from orchestrator.analysis.summary import pool, summarise
from orchestrator.config.render import config_hash, render_yaml
from orchestrator.config.schema import RAY, SIM, Config
from orchestrator.core import levels
from orchestrator.core.history import History
from orchestrator.core.machine import KIND_NAMES
from orchestrator.core.parameters import ParameterError
from orchestrator.core.record import RunRecord
from orchestrator.core.registry import Family, plugins
from orchestrator.core.system import System
from orchestrator.core.units import NS_PER_MS
from orchestrator.core.verdict import INVALID, UNDECIDED, ClaimsVerdict, Evidence, check_claims
from orchestrator.errors import ConfigError
from orchestrator.runtimes._parts import Parts
from orchestrator.systems.replicated_store import MEASURED

if TYPE_CHECKING:
    from orchestrator.runtimes.ray_cluster import RayRuntime

AUTO: Final = "auto"
DEFAULT_RESULTS: Final = "results"
_PROBE_OPERATIONS: Final = 4096


# --- plan -------------------------------------------------------------------------------


def plan(config: Config) -> Parts:
    """The parts of a run, checked against each other before anything starts.

    Raises ConfigError (a combination that cannot run, with its path), InfeasibleError (its own
    limits forbid it) or DataError (a trace that is missing or malformed).
    """
    parts = Parts.of(config)
    _check_runtime(parts)
    _check_load(parts)
    _check_reads(config, parts.system)
    _check_consistency(config, parts.system)
    return parts


def _check_runtime(parts: Parts) -> None:
    if parts.config.runtime != SIM:
        return
    if not parts.system.emulated:
        raise ConfigError(
            f"system {parts.config.system.name!r} is real processes, which cannot be simulated",
            path="runtime",
            hint=f"use runtime: {RAY}",
        )
    if parts.store.node.costs == MEASURED:
        raise ConfigError(
            "the simulator cannot measure costs and has no profile of this machine's",
            path="system.node.costs",
            hint=f"use costs: modelled, or runtime: {RAY}",
        )


def _check_load(parts: Parts) -> None:
    """Workload, arrival and system must fit; looks at the beginning of one client's stream."""
    config, system = parts.config, parts.system
    operations = parts.workload.stream(config.seed, 0, config.clients).block(_PROBE_OPERATIONS)
    unserved = sorted(set(operations.kind.tolist()) - system.kinds)
    if unserved:
        served = ", ".join(KIND_NAMES[kind] for kind in sorted(system.kinds))
        raise ConfigError(
            f"the workload has operations of kind {KIND_NAMES[unserved[0]]!r}, which"
            f" {_what(config)} does not serve",
            path="workload",
            hint=f"it serves {served}",
        )
    try:
        tables = [
            parts.arrival.timetable(config.seed, client, config.clients)
            for client in range(config.clients)
        ]
        tables[0].starts_ns(operations)
    except ParameterError as error:
        path = f"arrival.{error.key}" if error.key else "arrival"
        raise ConfigError(str(error), path=path) from None
    entry_bytes = int(numpy.ceil(operations.size.mean())) if len(operations) else 1
    system.validate(max(1, entry_bytes))


def _what(config: Config) -> str:
    """What serves the operations, in words."""
    protocol = getattr(config.system.params, "protocol", None)
    if protocol is not None:
        return f"protocol {protocol.name!r}"
    return f"system {config.system.name!r}"


def _check_reads(config: Config, system: System) -> None:
    """Levels that single reads ask for must be offered."""
    for level in config.client.reads:
        asked = levels.canonical(level)
        sticky = config.client.sticky
        if asked in system.read_levels(sticky) | system.claims(sticky):
            continue
        offered = ", ".join(sorted(system.read_levels(sticky))) or "none"
        reason = system.why_not(sticky, asked)
        raise ConfigError(
            f"{_what(config)} does not offer {asked} reads" + (f": {reason}" if reason else ""),
            path=f"client.reads.{level}",
            hint=f"levels that a read may ask for here: {offered}",
        )


def _check_consistency(config: Config, system: System) -> None:
    levels.canonical(levels.NONE if config.check.level == AUTO else config.check.level)
    if system.consistency is None:
        return
    asked = levels.canonical(system.consistency, path="system.consistency")
    claimed = system.claims(config.client.sticky)
    if asked in levels.closure(claimed):
        return
    words = " and ".join(levels.strongest(claimed)) or levels.NONE
    reason = system.why_not(config.client.sticky, asked)
    raise ConfigError(
        f"{asked} is asked for, and this configuration claims {words}"
        + (f": {reason}" if reason else ""),
        path="system.consistency",
        hint=_how_to_get(asked, config, system),
    )


def _how_to_get(asked: str, config: Config, system: System) -> str:
    """What would make the configuration claim ``asked``: conditions that plug-ins state."""
    if asked in levels.closure(system.claims(True)):
        return "client.sticky: true gives it"
    protocol = getattr(config.system.params, "protocol", None)
    ways = [
        f"{name} claims {level} {condition}"
        for name, found in plugins(Family.PROTOCOL).items()
        for level, condition in found.claims.items()
        if asked in levels.implied(level)
    ]
    mine = protocol.name if protocol is not None else ""
    ways.sort(key=lambda way: not way.startswith(f"{mine} "))
    return "; ".join(ways) if ways else "no protocol here claims it"


# --- execute ----------------------------------------------------------------------------


def checked_levels(parts: Parts) -> tuple[str, ...]:
    """The levels that the run's history is checked at, in the order of the lattice."""
    asked = parts.config.check.level
    claimed = parts.system.claims(parts.config.client.sticky) if asked == AUTO else {asked}
    held = {levels.canonical(level) for level in claimed}
    return tuple(level for level in levels.LEVELS if level in held)


def execute(parts: Parts, *, runtime: RayRuntime | None = None) -> RunRecord:
    """Run a plan; a Ray run without a ``runtime`` makes one and ends it.

    Raises EnvironmentFailure where the runtime fails.
    """
    if parts.config.runtime == SIM:
        from orchestrator.runtimes import simulated

        return simulated.run(parts)
    settle = levels.EVENTUAL in checked_levels(parts)
    if runtime is not None:
        return runtime.run(parts, settle=settle)
    from orchestrator.runtimes import ray_cluster

    own = ray_cluster.RayRuntime()
    try:
        return own.run(parts, settle=settle)
    finally:
        own.close()


def judge(parts: Parts, record: RunRecord) -> ClaimsVerdict:
    """What the checkers say of the run's history."""
    return check_claims(
        record.history,
        checked_levels(parts),
        Evidence(
            digests=[node.contents_digest for node in record.nodes],
            uncertainty_ns=record.clock_uncertainty_ns,
        ),
    )


# --- results ----------------------------------------------------------------------------


@dataclass(frozen=True)
class RunResult:
    """One run, checked and stored, or the pool of ``repeats``.

    ``summary`` is the object that ``archbench run --json`` prints. ``lost_between_runs_s``:
    from the last return of the run before on the same warm pool to the first intended start of
    this one; None for the first and in sim. ``kept`` says which operations were stored.
    """

    summary: dict[str, Any]
    record: RunRecord
    run_id: str
    config: Config
    lost_between_runs_s: float | None = None
    kept: str = "none"
    repeats: tuple[RunResult, ...] = field(default=(), repr=False)

    @property
    def good(self) -> bool:
        """Whether it may be believed, kept its consistency, and met its objective."""
        return is_good(self.summary)


def is_good(summary: Mapping[str, Any]) -> bool:
    """Valid, no consistency verdict but valid, no SLO missed: exit code 0."""
    verdict = summary["consistency"]["verdict"]
    return (
        bool(summary["valid"])
        and verdict not in (INVALID, UNDECIDED)
        and summary["slo"]["met"] is not False
    )


def new_run_id(hashed: str) -> str:
    """``20260131T120000-0a1b2c3d-9f3e``: sorts by time, names the configuration, is unique."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%dT%H%M%S}-{hashed[:8]}-{os.urandom(2).hex()}"


def _kept_operations(config: Config, history: History) -> tuple[History | None, str]:
    """The part of the history to store, and in words what it is."""
    match config.record.operations:
        case "all":
            return history, f"all {len(history)}"
        case "sample":
            kept = history.select(sampled_rows(history))
            keys = len(numpy.unique(kept.key))
            return kept, f"{len(kept)} of {len(history)} (all of {keys} keys)"
        case _:
            return None, "none"


def _latency_tables(record: RunRecord, config: Config) -> dict[str, dict[str, Any]]:
    """Histograms of the measured window by kind, as the ``latencies`` table holds them."""
    found = histograms(measured_window(record, config.client.timeout))
    tables = {}
    for kind, histogram in found.items():
        if histogram.count:
            ends_ns, counts = histogram.buckets()
            values_ms = [end_ns / NS_PER_MS for end_ns in ends_ns]
            tables[kind] = {"payload": histogram.encode(), "values_ms": values_ms, "counts": counts}
    return tables


# --- runner -----------------------------------------------------------------------------


class Runner:
    """Runs configurations one after another into one results folder.

    ``address`` names a Ray cluster (default: RAY_ADDRESS, else an embedded Ray). Ray is
    joined, and actors are made, when the first run needs them; they stay warm until
    :meth:`close`. Use it as a context manager.
    """

    def __init__(
        self, results: str | os.PathLike[str] = DEFAULT_RESULTS, address: str | None = None
    ):
        from orchestrator.store.parquet import Store

        self.store = Store(results)
        self._address = address
        self._runtime: RayRuntime | None = None
        self._provenance: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the actors and leave Ray; an embedded Ray ends."""
        if self._runtime is None:
            return
        from orchestrator.runtimes import ray_cluster

        runtime, self._runtime = self._runtime, None
        try:
            runtime.close()
        finally:
            ray_cluster.disconnect()

    def runtime(self) -> RayRuntime:
        """The warm pool, made at the first call. Raises EnvironmentFailure without Ray."""
        if self._runtime is None:
            from orchestrator.runtimes import ray_cluster

            try:
                self._runtime = ray_cluster.RayRuntime(self._address)
            except BaseException:
                ray_cluster.disconnect()
                raise
        return self._runtime

    def run(self, config: Config | Parts, *, seed: int | None = None) -> RunResult:
        """Plan, run, check and store; ``seed`` replaces that of the config.

        A plan that is made already is not made again. Raises what :func:`plan` raises, and
        EnvironmentFailure where the runtime or the results folder fails; nothing is stored then.
        """
        parts = config if isinstance(config, Parts) else plan(config)
        self.store.check_writable()
        if seed is not None:
            # Workloads, arrivals and systems are given the seed when they are used.
            parts = dataclasses.replace(parts, config=dataclasses.replace(parts.config, seed=seed))
        name = parts.config.runtime
        runtime = self.runtime() if name == RAY else None
        provenance = self._provenance_of(name)
        record = execute(parts, runtime=runtime)
        lost_s = runtime.lost_between_runs_s if runtime is not None else None
        return self._stored(parts, record, provenance, lost_s)

    def run_repeated(self, config: Config | Parts, repeats: int) -> RunResult:
        """``repeats`` runs with seeds counted up from the config's, each stored, pooled."""
        parts = config if isinstance(config, Parts) else plan(config)
        seeds = range(parts.config.seed, parts.config.seed + repeats)
        done = [self.run(parts, seed=seed) for seed in seeds]
        return done[0] if repeats == 1 else pooled(done)

    def _stored(
        self,
        parts: Parts,
        record: RunRecord,
        provenance: Mapping[str, Any],
        lost_s: float | None,
    ) -> RunResult:
        config = parts.config
        hashed = config_hash(config)
        run_id = new_run_id(hashed)
        summary = summarise(
            record,
            config,
            judge(parts, record),
            run_id=run_id,
            config_hash=hashed,
            results=self.store.results,
        )
        operations, kept = _kept_operations(config, record.history)
        self.store.write_run(
            summary,
            record,
            config_yaml=render_yaml(config),
            provenance=provenance,
            intervals=client_series(record, config.client.timeout, config.slo),
            latencies=_latency_tables(record, config),
            operations=operations,
            lost_between_trials_s=lost_s,
        )
        return RunResult(summary, record, run_id, config, lost_s, kept)

    def _provenance_of(self, runtime: str) -> dict[str, Any]:
        """Code, machine and cluster, asked once a runner, and the time now."""
        from orchestrator.store import provenance

        if runtime not in self._provenance:
            shape: dict[str, float] = {}
            if runtime == RAY:
                from orchestrator.runtimes import ray_cluster

                shape = ray_cluster.cluster_shape()
            nodes = int(shape["nodes"]) if shape else None
            self._provenance[runtime] = provenance.collect(nodes, shape.get("cpus"))
        now = datetime.datetime.now(datetime.UTC)
        return self._provenance[runtime] | {"started_utc": now.isoformat()}


def pooled(results: Sequence[RunResult]) -> RunResult:
    """Repeats as one result; names are those of the first."""
    first = results[0]
    summary = pool(
        [result.summary for result in results],
        [result.record for result in results],
        first.config,
    )
    return dataclasses.replace(first, summary=summary, repeats=tuple(results))
