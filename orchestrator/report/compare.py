"""Two runs side by side: differences with intervals, and whether they mean anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.core import levels
from orchestrator.core.units import format_size
from orchestrator.core.verdict import INVALID, VALID
from orchestrator.report.model import Summary, finite, interval, lookup, metric
from orchestrator.report.wording import (
    NONE,
    MetricName,
    counted,
    in_use,
    metric_name,
    number,
    percent,
    plain,
    quantity,
    span,
    times,
)

BETTER = "better"
WORSE = "worse"
UNCLEAR = "unclear"
UNCLAIMED = "nothing claimed"

KIB = 1024
_MODEL_LATENCY = "model.mean_latency_ms"
SATURATED = 0.8
"""From this utilisation on the busiest resource is what limits a run."""


def ratio_interval(
    best: float,
    best_interval: tuple[float, float],
    base: float,
    base_interval: tuple[float, float],
) -> tuple[float, float] | None:
    """Interval of ``best / base`` for two independent estimates, None where one touches 0.

    Method of variance estimates recovery on the logarithms, which keeps the intervals'
    asymmetry (Zou and Donner, Statistics in Medicine 27, 2008).
    """
    if min(best, base, best_interval[0], base_interval[0]) <= 0:
        return None
    middle = math.log(best / base)
    below = math.hypot(math.log(best / best_interval[0]), math.log(base_interval[1] / base))
    above = math.hypot(math.log(best_interval[1] / best), math.log(base / base_interval[0]))
    return math.exp(middle - below), math.exp(middle + above)


@dataclass(frozen=True)
class Comparison:
    """One metric of the best variant against the default's."""

    name: MetricName
    best: float | None
    best_interval: tuple[float, float] | None
    base: float | None
    base_interval: tuple[float, float] | None
    ratio: float | None
    ratio_interval: tuple[float, float] | None

    @property
    def verdict(self) -> str:
        """BETTER or WORSE where the interval of the ratio leaves out 1, else UNCLEAR."""
        if self.ratio_interval is None or self.ratio_interval[0] <= 1 <= self.ratio_interval[1]:
            return UNCLEAR
        more = self.ratio_interval[0] > 1
        return BETTER if more == self.name.higher_is_better else WORSE


def compare(
    best: Summary | None, base: Summary | None, path: str, *, maximize: bool = True
) -> Comparison:
    """Compare one metric; parts that are missing are None."""
    name = metric_name(path, maximize=maximize)
    value, reference = metric(best, path), metric(base, path)
    value_interval, reference_interval = interval(best, path), interval(base, path)
    ratio = bounds = None
    if value is not None and reference is not None and reference > 0 and value >= 0:
        ratio = value / reference
        if value_interval is not None and reference_interval is not None:
            bounds = ratio_interval(value, value_interval, reference, reference_interval)
    return Comparison(name, value, value_interval, reference, reference_interval, ratio, bounds)


@dataclass(frozen=True)
class Row:
    """One line of the table best beside default; intervals are "" where there is none."""

    label: str
    best: str
    best_interval: str
    base: str
    base_interval: str
    change: str
    change_interval: str
    verdict: str


_METRICS = (
    "throughput_ops",
    "goodput_ops",
    "latency_ms.all.p50",
    "latency_ms.all.p99",
    "latency_ms.all.p999",
    "error_rate",
    "availability",
    "cache.hit_ratio",
    "cost",
)


def rows(
    best: Summary | None, base: Summary | None, objective: str | None, *, maximize: bool
) -> list[Row]:
    """The table: the objective first, then what both or one of them have, then the words."""
    paths = [objective] if objective else []
    paths += [path for path in _METRICS if path != objective]
    table = []
    for path in paths:
        found = compare(best, base, path, maximize=maximize)
        if found.best is not None or found.base is not None or path == objective:
            table.append(_number_row(found))
    for label, describe in (
        ("Busiest resource", bottleneck),
        ("Consistency", consistency),
        ("Within the SLO", slo_word),
        ("Valid", valid_word),
    ):
        texts = describe(best), describe(base)
        if texts != (NONE, NONE):
            table.append(Row(label, texts[0], "", texts[1], "", "", "", UNCLEAR))
    return table


def _number_row(found: Comparison) -> Row:
    unit = found.name.unit
    change, bounds = times(found.ratio), ""
    if found.ratio_interval is not None:
        bounds = span(found.ratio_interval)
    if unit == "%":
        change = NONE
        if found.best is not None and found.base is not None:
            points = f"{100 * (found.best - found.base):+.2g}"
            change = ("0" if float(points) == 0 else points.replace("-", "−")) + " points"
    return Row(
        found.name.label + (f" ({unit})" if unit not in ("", "%") else ""),
        quantity(found.best, unit if unit == "%" else ""),
        span(found.best_interval) if found.best_interval else "",
        quantity(found.base, unit if unit == "%" else ""),
        span(found.base_interval) if found.base_interval else "",
        change,
        bounds,
        found.verdict,
    )


def bottleneck(summary: Summary | None) -> str:
    """``leader.cpu at 97 %``."""
    resource = lookup(summary, "bottleneck.resource")
    used = metric(summary, "bottleneck.utilisation")
    if not resource:
        return NONE
    return plain(resource, 60) + (f" at {in_use(used)}" if used is not None else "")


def role_of_bottleneck(summary: Summary | None) -> str:
    """``binding resource``; below saturation it is the busiest one and binds nothing."""
    used = metric(summary, "bottleneck.utilisation")
    return "binding resource" if used is None or used >= SATURATED else "busiest resource"


def consistency(summary: Summary | None) -> str:
    """``valid: read_your_writes, monotonic_reads``, or ``nothing claimed``."""
    verdict = lookup(summary, "consistency.verdict")
    if not verdict:
        return NONE
    if lookup(summary, "consistency.claimed") == levels.NONE and verdict == VALID:
        return UNCLAIMED
    strongest = lookup(summary, "consistency.strongest")
    passed = ", ".join(map(str, strongest)) if isinstance(strongest, (list, tuple)) else ""
    return plain(f"{verdict}: {passed}" if passed else verdict)


def recovery(summary: Summary | None) -> str:
    """``4 faults, all recovered from, median 0.62 s, longest 0.71 s``; NONE without faults."""
    strikes = metric(summary, "resilience.strikes")
    if not strikes:
        return NONE
    recovered = metric(summary, "resilience.recovered") or 0
    unknown = metric(summary, "resilience.recovery_unknown") or 0
    text = counted(int(strikes), "fault")
    if not recovered:
        return f"{text}, {'recovery not known' if unknown == strikes else 'not recovered from'}"
    if strikes > 1:
        text += ", all" if recovered == strikes else f", {number(recovered)} of them"
    text += " recovered from" if strikes > 1 else ", recovered from"
    text += f" ({number(unknown)} not known)" if unknown else ""
    median, longest = (metric(summary, f"resilience.recovered_s.{name}") for name in ("p50", "max"))
    if median is None or longest is None:
        return text
    if recovered == 1:
        return f"{text} in {quantity(median, 's')}"
    return f"{text}, median {quantity(median, 's')}, longest {quantity(longest, 's')}"


def lost_writes(summary: Summary | None) -> str:
    """``0 acknowledged writes lost``; NONE where there is nothing to tell."""
    lost = metric(summary, "resilience.lost_acknowledged_writes")
    unread = metric(summary, "resilience.unread_keys")
    parts = []
    if lost is not None:
        least = "at least " if lookup(summary, "resilience.lost_is_least") is True else ""
        parts.append(f"{least}{counted(int(lost), 'acknowledged write')} lost")
    elif lookup(summary, "resilience.durability") == INVALID:
        parts.append("acknowledged writes lost, which cannot be counted")
    if unread:
        parts.append(f"{counted(int(unread), 'written key')} could not be read back")
    return "; ".join(parts) or NONE


def overload(summary: Summary | None) -> str:
    """``metastable: ...; 1,204 operations turned away; 1.8 attempts for each operation``, as far as
    it applies.
    """
    parts = []
    collapse = lookup(summary, "overload.metastable")
    if isinstance(collapse, Mapping):
        was, is_now = (percent(collapse[f"good_share_{when}"]) for when in ("before", "after"))
        parts.append(
            f"metastable: the cause ({plain(collapse['cause'], 60)}) was over at"
            f" {quantity(collapse['cause_over_s'], 's')}, and {is_now} of the operations were good"
            f" from then on, {was} before"
        )
    refused = metric(summary, "overload.refused")
    if refused:
        parts.append(f"{counted(int(refused), 'operation')} turned away")
    attempts = metric(summary, "overload.attempts_per_operation")
    if attempts is not None and attempts > 1:
        parts.append(f"{number(attempts)} attempts for each operation")
    for name, what in (("cancelled", "copies dropped"), ("answers_in_vain", "answers in vain")):
        count = metric(summary, f"overload.{name}")
        if count:
            parts.append(f"{int(count):,} {what}")
    return "; ".join(parts) or NONE


def contradicts(summary: Summary | None) -> bool:
    """Whether the run and its queueing model cannot both be right."""
    return isinstance(lookup(summary, "model.contradiction"), str)


def modelled(summary: Summary | None) -> str:
    """``capacity 6,900 ops/s (n0.cpu); mean latency 1.2 ms, 4 % above`` or how the run contradicts
    it; NONE without a model.
    """
    if contradicts(summary):
        return f"contradicted: {plain(lookup(summary, 'model.contradiction'), 200)}"
    capacity, latency = metric(summary, "model.capacity_ops"), metric(summary, _MODEL_LATENCY)
    if capacity is None:
        return NONE
    resource = plain(lookup(summary, "model.resource"), 30)
    said = f"capacity {quantity(capacity, 'ops/s')} ({resource})"
    ratio = metric(summary, "model.measured_over_model.mean_latency")
    if latency is None or ratio is None:
        return said
    difference = f"{abs(ratio - 1):.1%} {'above' if ratio >= 1 else 'below'} it"
    return f"{said}; mean latency {quantity(latency, 'ms')}, measured {difference}"


def hot_shards(summary: Summary | None) -> str:
    """``shard 3 is hot: 41 % of the operations, 25 % would be fair``, or that none is; NONE where
    there are no shards.
    """
    by_shard = lookup(summary, "shards.by_shard")
    if not isinstance(by_shard, (list, tuple)):
        return NONE
    hot = [each for each in by_shard if each["hot"]]
    if not hot:
        most = metric(summary, "shards.max_over_fair")
        busiest = "" if most is None else f"; the busiest takes {times(most)} its fair share"
        return f"none of {len(by_shard)} is hot{busiest}"
    return "; ".join(
        f"shard {each['shard']} is hot: {percent(round(each['share'], 3))} of the operations,"
        f" {percent(round(each['fair_share'], 3))} would be fair"
        for each in hot
    )


def moves(summary: Summary | None) -> str:
    """``add_shard 3 moved 430 keys (49KiB) in 0.35 s, p99 1.8 ms meanwhile and 1.3 ms before`` and
    so on for each command; NONE without any.
    """
    found = lookup(summary, "moves")
    told = [_move(each) for each in found] if isinstance(found, (list, tuple)) else []
    return "; ".join(told) or NONE


def _move(move: Mapping[str, Any]) -> str:
    subject = move["shard"] if "shard" in move else move["node"]
    name = f"{move['command']} {subject}"
    if move["began_s"] is None:
        return f"{name} has moved nothing"
    keys = counted(int(move["keys"]), "key")
    unit = KIB if move["bytes"] < KIB**2 else KIB**2
    size = format_size(-(-int(move["bytes"]) // unit) * unit)
    if move["ended_s"] is None:
        return f"{name} has moved {keys} ({size}) and is not done"
    took = quantity(move["ended_s"] - move["began_s"], "s")
    p99 = [quantity(move[when]["p99_ms"], "ms") for when in ("during", "before")]
    return f"{name} moved {keys} ({size}) in {took}, p99 {p99[0]} meanwhile and {p99[1]} before"


def slo_word(summary: Summary | None) -> str:
    """``yes``, or what it violates."""
    met = lookup(summary, "slo.met")
    if met is None:
        return NONE
    return "yes" if met else "no: " + _list(summary, "slo.violations", "it is missed")


def valid_word(summary: Summary | None) -> str:
    """``yes``, or why the run may not be believed."""
    valid = lookup(summary, "valid")
    if valid is None:
        return NONE
    return "yes" if valid else "no: " + _list(summary, "invalid_reasons", "no reason was stored")


def _list(summary: Summary | None, path: str, otherwise: str) -> str:
    found = lookup(summary, path)
    if isinstance(found, (list, tuple)) and found:
        return plain("; ".join(_item(item) for item in found))
    return otherwise


def _item(item: object) -> str:
    """A reason in words; a violation comes as metric, value, bound and unit."""
    if not isinstance(item, Mapping) or "metric" not in item:
        return str(item)
    if item.get("value") is None and item.get("reason"):
        return f"{item['metric']} cannot be given: {item['reason']}"
    unit = "%" if item.get("unit") == "ratio" else str(item.get("unit") or "")
    value, bound = (quantity(finite(item.get(key)), unit) for key in ("value", "bound"))
    return f"{item['metric']} is {value}, bound {bound}"


def harness(summary: Mapping[str, Any] | None) -> str:
    """What measuring itself takes, in words."""
    if summary is None or summary["harness"] is None:
        return NONE
    found = summary["harness"]
    share = "" if found["share"] is None else f", {percent(found['share'])} of the median latency"
    null = f"a null operation is off by {quantity(found['floor_ms'], 'ms')}{share}"
    late_ms = found.get("late_ms") or 0
    return f"{null}; waits ended {quantity(late_ms, 'ms')} late" if late_ms > 0 else null


def links(summary: Mapping[str, Any] | None) -> str:
    """``250 us one way, asked for 200 us``, and the worst link where it is not as asked."""
    asked, got = metric(summary, "links.asked_ms"), metric(summary, "links.got_ms")
    if summary is None or asked is None or got is None:
        return NONE
    text = f"{quantity(got, 'ms')} one way on average, asked for {quantity(asked, 'ms')}"
    if summary["links"]["as_asked"]:
        return text
    worst = summary["links"]["worst"]
    return (
        f"{text}; not as asked: {worst['source']} to {worst['target']}"
        f" {quantity(worst['excess_ms'], 'ms')} too much"
    )
