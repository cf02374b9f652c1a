"""The composition root: configuration and seed to plan, to run, to checked and stored result.

:func:`orchestrator.plan.plan` refuses what cannot run before anything starts, :func:`execute`
hands the plan to its runtime, and a :class:`Runner` judges what came back, stores it and keeps
what is worth keeping between runs: the store and Ray's warm pool of actors.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy

from orchestrator.analysis.latency import histograms, measured_window
from orchestrator.analysis.model import beside, predict, shares_of
from orchestrator.analysis.sample import sampled_rows
from orchestrator.analysis.series import balance_series, client_series
from orchestrator.analysis.summary import pool, summarise
from orchestrator.analysis.warmup import settled
from orchestrator.config.render import config_hash, render_yaml
from orchestrator.config.schema import RAY, SIM, Config
from orchestrator.core import levels
from orchestrator.core.history import History
from orchestrator.core.parameters import AUTO
from orchestrator.core.per_level import check_levels
from orchestrator.core.record import RunRecord, digests_to_compare
from orchestrator.core.strongest import strongest_passed
from orchestrator.core.units import NS_PER_MS
from orchestrator.core.verdict import INVALID, UNDECIDED, ClaimsVerdict, Evidence
from orchestrator.errors import PartLost
from orchestrator.plan import checked_levels, plan
from orchestrator.runtimes._parts import Parts

if TYPE_CHECKING:
    from orchestrator.runtimes.ray_cluster import RayRuntime

DEFAULT_RESULTS: Final = "results"


# --- execute ----------------------------------------------------------------------------


def execute(parts: Parts, *, runtime: RayRuntime | None = None, repeat: int = 0) -> RunRecord:
    """Run a plan; a Ray run without a ``runtime`` makes one and ends it. ``repeat``: of several
    alike the hosts of a cluster are used in turn.

    Raises EnvironmentFailure where the runtime fails.
    """
    record = _executed(parts, runtime, repeat)
    if parts.config.warmup != AUTO:
        return record
    return settled(record, parts.config.client.timeout, parts.lead_ns)


def _executed(parts: Parts, runtime: RayRuntime | None, repeat: int) -> RunRecord:
    if parts.config.runtime == SIM:
        from orchestrator.runtimes import simulated

        return simulated.run(parts)
    asked = map(levels.canonical, parts.config.client.reads)
    settle = levels.EVENTUAL in {*checked_levels(parts), *asked}
    if runtime is not None:
        return runtime.run(parts, settle=settle, repeat=repeat)
    from orchestrator.runtimes import ray_cluster

    own = ray_cluster.RayRuntime()
    try:
        return own.run(parts, settle=settle, repeat=repeat)
    finally:
        own.close()


def judge(parts: Parts, record: RunRecord) -> ClaimsVerdict:
    """What the checkers say of the run's history."""
    evidence = Evidence(
        model=parts.workload.model,
        digests=digests_to_compare(each.contents_digest for each in record.nodes),
        uncertainty_ns=record.time_uncertainty_ns,
        clocks=record.client_clocks,
    )
    found = check_levels(record.history, checked_levels(parts), evidence)
    mixed = bool(parts.config.client.reads)
    known = {} if mixed else {each.level: each.verdict for each in found.verdicts}
    strongest = strongest_passed(record.history, known, evidence)
    return dataclasses.replace(found, strongest=strongest)


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
        """Whether it may be believed, kept its consistency, met its objective, and is as precise as
        was asked.
        """
        precision = self.summary["precision"]
        return is_good(self.summary) and (precision is None or bool(precision["met"]))


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


def _modelled(parts: Parts, record: RunRecord, summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the queueing model says of the run, beside what was measured."""
    shares = shares_of(parts.workload, parts.config)
    hit_ratio = summary["cache"]["hit_ratio"]
    found = predict(parts.config, parts.arrival, shares, record.offered_ops, hit_ratio)
    return None if found is None else beside(found.figures(), summary)


RUNS_MAX: Final = 3
"""How often a run is tried that loses a part each time."""


# --- runner -----------------------------------------------------------------------------


class Runner:
    """Runs configurations one after another into one results folder.

    ``address`` names a Ray cluster (default: RAY_ADDRESS, else an embedded Ray). Ray is
    joined, and actors are made, when the first run needs them; they stay warm until
    :meth:`close`. Use it as a context manager. Of several on one cluster, each has its ``turn``.
    """

    def __init__(
        self,
        results: str | os.PathLike[str] = DEFAULT_RESULTS,
        address: str | None = None,
        turn: int = 0,
    ):
        from orchestrator.store.parquet import Store

        self.store = Store(results)
        self._address = address
        self._turn = turn
        self._runtime: RayRuntime | None = None
        self._abandoned = False
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

    def abandon(self) -> None:
        """End the actors, also under a run that another thread waits for: it raises PartLost."""
        self._abandoned = True
        if self._runtime is not None:
            self._runtime.abandon()

    def close(self) -> None:
        """End the actors and leave Ray; an embedded Ray ends."""
        if self._runtime is not None:
            runtime, self._runtime = self._runtime, None
            runtime.close()

    def runtime(self) -> RayRuntime:
        """The warm pool, made at the first call. Raises EnvironmentFailure without Ray."""
        if self._runtime is None:
            from orchestrator.runtimes import ray_cluster

            self._runtime = ray_cluster.RayRuntime(self._address, self._turn)
        return self._runtime

    def run(self, config: Config | Parts, *, seed: int | None = None, repeat: int = 0) -> RunResult:
        """Plan, run, check and store; ``seed`` replaces that of the config. Where there are several
        hosts, the n-th ``repeat`` goes to them in another order than the one before.

        A plan that is made already is not made again. Raises what :func:`plan` raises, and
        EnvironmentFailure where the runtime or the results folder fails; nothing is stored then.
        """
        parts = config if isinstance(config, Parts) else plan(config)
        self.store.check_writable()
        if seed is not None:
            # Workloads, arrivals and systems are given the seed when they are used.
            parts = dataclasses.replace(parts, config=dataclasses.replace(parts.config, seed=seed))
        name = parts.config.runtime
        self._check_wanted()
        runtime = self.runtime() if name == RAY else None
        provenance = self._provenance_of(name)
        record = execute(parts, runtime=runtime, repeat=repeat)
        self._check_wanted()
        lost_s = runtime.lost_between_runs_s if runtime is not None else None
        return self._stored(parts, record, provenance, lost_s)

    def _check_wanted(self) -> None:
        """What is measured while everything is being ended says nothing."""
        if self._abandoned:
            raise PartLost("the run was abandoned")

    def run_surely(
        self,
        config: Config | Parts,
        lost: Callable[[str], None] | None = None,
        *,
        seed: int | None = None,
        repeat: int = 0,
    ) -> RunResult:
        """As :meth:`run`; again, on what is left, where a process or a host of it was lost.

        ``lost`` is told why, each time. The last of RUNS_MAX attempts counts, whatever it was.
        """
        for attempt in range(1, RUNS_MAX + 1):
            try:
                result = self.run(config, seed=seed, repeat=repeat)
            except PartLost as error:
                if attempt == RUNS_MAX or self._abandoned:
                    raise
                reason = str(error)
            else:
                if attempt == RUNS_MAX or not result.record.lost_parts:
                    break
                reason = "; ".join(result.record.lost_parts)
            if lost is not None:
                lost(reason)
        return result

    def run_repeated(self, config: Config | Parts, repeats: int) -> RunResult:
        """``repeats`` runs with seeds counted up from the config's, each stored, pooled.

        One of several that loses a part is made again, so that it does not spoil the others.
        """
        parts = config if isinstance(config, Parts) else plan(config)
        if repeats == 1:
            return self.run(parts)
        first = parts.config.seed
        return pooled(
            [self.run_surely(parts, seed=first + each, repeat=each) for each in range(repeats)]
        )

    def valid_results(self, *, simulated: bool = False) -> dict[str, dict[str, Any]]:
        """Config hash -> result object of the latest valid run that is stored; of a ``simulated``
        one also where it is not valid, since it would come out as it did.
        """
        from orchestrator.store.parquet import result

        rows = self.store.table("runs").to_pylist()
        rows.sort(key=lambda row: (str(row["started_utc"]), row["run_id"]))
        return {
            row["config_hash"]: result(row)
            for row in rows
            if row["valid"] or (simulated and row["runtime"] == SIM)
        }

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
            model=parts.workload.model,
            run_id=run_id,
            config_hash=hashed,
            results=self.store.results,
        )
        summary["model"] = _modelled(parts, record, summary)
        operations, kept = _kept_operations(config, record.history)
        self.store.write_run(
            summary,
            record,
            config_yaml=render_yaml(config),
            provenance=provenance,
            intervals=client_series(record, config.client.timeout, config.slo)
            | balance_series(record),
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
