"""Whether the run kept the consistency that its system claims, and how old what it read was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy

from orchestrator.analysis.staleness import NOT_A_READ, staleness
from orchestrator.core import levels
from orchestrator.core.machine import ADD, APPEND, INCREMENT, TRANSACTION
from orchestrator.core.record import RunRecord
from orchestrator.core.units import NS_PER_MS
from orchestrator.core.verdict import INVALID, UNDECIDED, VALID, ClaimsVerdict

_WITHOUT_IDENTITY: Final = (INCREMENT, ADD, APPEND, TRANSACTION)
"""Where there are such operations, what a read returned does not name one write."""


def kept(claims: ClaimsVerdict | None) -> dict[str, Any]:
    """``claimed`` names the strongest levels checked, joined by ``+`` where no one implies all."""
    parts: dict[str, Any] = dict.fromkeys(
        ("claimed", "verdict", "strongest", "operations_checked", "witness")
    )
    if claims is not None:
        broken = [found for found in claims.verdicts if found.verdict == INVALID]
        parts |= {
            "claimed": "+".join(levels.strongest(found.level for found in claims.verdicts)),
            "verdict": claims.verdict,
            "strongest": list(claims.strongest),
            "operations_checked": max((found.operations for found in claims.verdicts), default=0),
            "witness": [dict(operation) for operation in broken[0].witness] if broken else None,
        }
    return parts


def stale(record: RunRecord) -> dict[str, Any]:
    """How old what reads of the measured window returned was, in time and in versions."""
    if numpy.isin(record.history.kind, _WITHOUT_IDENTITY).any():
        return {"staleness_ms": None, "staleness_versions": None}
    behind_ns, versions = staleness(record.history, record.time_uncertainty_ns)
    intended_ns = record.history.intended_ns
    within = (behind_ns != NOT_A_READ) & (intended_ns >= record.warmup_ns)
    within &= intended_ns < record.end_ns
    if not within.any():
        return {"staleness_ms": None, "staleness_versions": None}
    shares = {"p50": 0.5, "p99": 0.99}

    def quantiles(column: Any, unit: int) -> dict[str, float]:
        found = numpy.quantile(column[within], list(shares.values()), method="inverted_cdf")
        return {name: float(value) / unit for name, value in zip(shares, found, strict=True)}

    return {
        "staleness_ms": quantiles(behind_ns, NS_PER_MS),
        "staleness_versions": quantiles(versions, 1),
    }


def pooled_consistency(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The worst verdict with its witness; ``strongest``: what every repeat passed."""
    if any(part["verdict"] is None for part in parts):
        return dict(parts[0]) if len(parts) == 1 else dict.fromkeys(parts[0])
    said = [part["verdict"] for part in parts]
    worst = next(verdict for verdict in (INVALID, UNDECIDED, VALID) if verdict in said)
    held = frozenset.intersection(*(levels.closure(part["strongest"]) for part in parts))
    return dict(parts[said.index(worst)]) | {
        "strongest": levels.strongest(held),
        "operations_checked": sum(part["operations_checked"] for part in parts),
        **{key: _worst_quantiles(parts, key) for key in ("staleness_ms", "staleness_versions")},
    }


def _worst_quantiles(parts: Sequence[Mapping[str, Any]], key: str) -> dict[str, float] | None:
    """The stalest repeat, quantile by quantile."""
    known = [part[key] for part in parts if part[key] is not None]
    return {name: max(each[name] for each in known) for name in known[0]} if known else None
