"""What an operator's command moved, how long that took, and what it cost.

A command's move lasts from the first fence to the release of the last portion. What it cost is told
by intended starts, as everything: latency and good operations while it lasted, beside those of the
time before it and after it (until the next one), and when goodput was **back** to stay
(:mod:`orchestrator.analysis.recovery`). A portion is **held** from its fence until its old group
knows that the new one has it; operations on it wait meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from orchestrator.analysis.latency import latencies_ns, ms, quantile_ns
from orchestrator.analysis.recovery import Course, before, recovery
from orchestrator.analysis.resilience import costs_between
from orchestrator.config.schema import Config
from orchestrator.core.giving import FENCED, MOVED
from orchestrator.core.layout import ADD_SHARD, REMOVE_SHARD, Layouts
from orchestrator.core.record import RunRecord
from orchestrator.core.units import NS_PER_S
from orchestrator.systems.replicated_store import ReplicatedStoreParams


@dataclass(frozen=True)
class Portion:
    """A cell that went over in an epoch. ``moved_ns``: None where it had not by the end."""

    epoch: int
    cell: int
    source: int
    target: int
    fenced_ns: int
    moved_ns: int | None
    keys: int = 0
    size_bytes: int = 0


def layouts_of(config: Config) -> Layouts | None:
    """Where the keys of a run were; None where the system has no shards."""
    store = config.system.params
    if not isinstance(store, ReplicatedStoreParams):
        return None
    return store.layouts if store.apart else None


def portions(record: RunRecord) -> list[Portion]:
    """All portions in order of their fences. More than one leader may have told of one: the
    earliest word of each kind counts.
    """
    fenced: dict[tuple[int, int], tuple[int, list[int]]] = {}
    moved: dict[tuple[int, int], tuple[int, list[int]]] = {}
    for event in record.events:
        if event.kind in (FENCED, MOVED):
            numbers = [int(word) for word in event.detail.split()]
            known = fenced if event.kind == FENCED else moved
            known.setdefault((numbers[0], numbers[1]), (event.at_ns, numbers))
    found = []
    for which in {**fenced, **moved}:
        # Whoever fenced it may have ended before it could tell.
        began_ns, numbers = fenced.get(which) or moved[which]
        ended_ns, numbers = moved.get(which, (None, [*numbers, 0, 0]))
        epoch, cell, source, target, keys, size_bytes = numbers[:6]
        found.append(Portion(epoch, cell, source, target, began_ns, ended_ns, keys, size_bytes))
    return sorted(found, key=lambda portion: portion.fenced_ns)


def move_figures(record: RunRecord, config: Config, course: Course) -> list[dict[str, Any]]:
    """One object a command, in their order."""
    layouts = layouts_of(config)
    if layouts is None or not layouts.moves:
        return []
    every = portions(record)
    at_ns = _times_ns(config, len(layouts.changes))
    latency_ns = latencies_ns(record.history, config.client.timeout)
    figures = []
    calm_since_ns = record.warmup_ns
    for number, change in enumerate(layouts.changes, 1):
        mine = [portion for portion in every if portion.epoch == number]
        later_ns = [at for at in at_ns[number:] if at > at_ns[number - 1]]
        horizon_ns = min([record.end_ns, *later_ns])
        told = _named(layouts, change.command, change.subject, at_ns[number - 1], mine)
        began_ns = min((portion.fenced_ns for portion in mine), default=None)
        if began_ns is not None:
            ended_ns = _ended_ns(mine)
            until_ns = min(record.end_ns, ended_ns or record.end_ns)
            spans = {
                "before": (calm_since_ns, began_ns),
                "during": (began_ns, until_ns),
                "after": (until_ns, max(until_ns, horizon_ns)),
            }
            told |= {
                when: _figures(record, course, latency_ns, *span) for when, span in spans.items()
            }
            told |= costs_between(course, began_ns, until_ns)
            usual = before(course, calm_since_ns, began_ns)
            back = recovery(course, usual, began_ns, max(until_ns, horizon_ns))
            told["back_s"] = None if back.at_ns is None else (back.at_ns - began_ns) / NS_PER_S
            calm_since_ns = until_ns
        figures.append(told)
    return figures


def _times_ns(config: Config, count: int) -> list[int]:
    """When the commands were given, in the order of the epochs."""
    given = config.system.params.moving_commands
    return [command.at for command in given][:count]


def _ended_ns(mine: Sequence[Portion]) -> int | None:
    """When the last portion had gone over; None where one has not."""
    ends_ns = [portion.moved_ns for portion in mine if portion.moved_ns is not None]
    return max(ends_ns) if len(ends_ns) == len(mine) else None


def _named(
    layouts: Layouts, command: str, subject: int, at_ns: int, mine: Sequence[Portion]
) -> dict[str, Any]:
    """What moved; the figures of what it cost are None where nothing did."""
    ended_ns = _ended_ns(mine) if mine else None
    held_ns = numpy.array(
        [portion.moved_ns - portion.fenced_ns for portion in mine if portion.moved_ns is not None],
        dtype=numpy.int64,
    )
    routes: dict[tuple[int, int], list[int]] = {}
    for portion in mine:
        shards = layouts.groups[portion.source].shard, layouts.groups[portion.target].shard
        sums = routes.setdefault(shards, [0, 0])
        sums[0] += portion.keys
        sums[1] += portion.size_bytes
    return {
        "command": command,
        "shard" if command in (ADD_SHARD, REMOVE_SHARD) else "node": subject,
        "at_s": at_ns / NS_PER_S,
        "began_s": mine[0].fenced_ns / NS_PER_S if mine else None,
        "ended_s": None if ended_ns is None else ended_ns / NS_PER_S,
        "portions": len(mine),
        "keys": sum(portion.keys for portion in mine),
        "bytes": sum(portion.size_bytes for portion in mine),
        "held_ms": {"p50": ms(quantile_ns(held_ns, 500)), "max": ms(quantile_ns(held_ns, 1000))},
        "routes": [
            {"from": source, "to": target, "keys": keys, "bytes": size_bytes}
            for (source, target), (keys, size_bytes) in sorted(routes.items())
        ],
        "before": None,
        "during": None,
        "after": None,
        "operations_lost": None,
        "availability": None,
        "goodput_availability": None,
        "slo_minutes_burnt": None,
        "back_s": None,
    }


def _figures(
    record: RunRecord, course: Course, latency_ns: Any, start_ns: int, end_ns: int
) -> dict[str, float | None]:
    """Of the operations that were intended then."""
    intended_ns = record.history.intended_ns
    latencies = latency_ns[(intended_ns >= start_ns) & (intended_ns < end_ns)]
    good = int(course.good[course.between(start_ns, end_ns)].sum())
    lasts_s = (end_ns - start_ns) / NS_PER_S
    return {
        "goodput_ops": good / lasts_s if lasts_s > 0 else None,
        "p50_ms": ms(quantile_ns(latencies, 500)),
        "p99_ms": ms(quantile_ns(latencies, 990)),
    }
