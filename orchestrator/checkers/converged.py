"""Eventual consistency, as far as the end of a run shows it: all replicas hold the same.

Eventual consistency (Vogels, "Eventually Consistent", CACM 2009) speaks of the time after the
last write; a run ends with the load stopped and the network whole, so that replicas whose
contents still differ then have not converged. The cost is one comparison a replica.
"""

from __future__ import annotations

from typing import Any

from orchestrator.core.history import History
from orchestrator.core.levels import EVENTUAL
from orchestrator.core.registry import Family, register
from orchestrator.core.verdict import INVALID, UNDECIDED, VALID, Evidence, Verdict


@register(Family.CHECKER, EVENTUAL)
class Converged:
    """All replicas hold the same contents at the end."""

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """Compare the digests; there is no witness, replicas differ and not operations."""
        groups: dict[str, list[int]] = {}
        for replica, digest in enumerate(evidence.digests):
            groups.setdefault(digest, []).append(replica)
        silent = groups.pop("", [])
        # The largest group is the norm, the earliest of equals.
        norm = max(groups.values(), key=len, default=[])
        strays = [replica for group in groups.values() if group is not norm for replica in group]
        if strays:
            found = INVALID
            text = (
                f"After the run the contents of {_replicas(strays)} differ from those of "
                f"{_replicas(norm)}."
            )
        elif silent or not norm:
            found = UNDECIDED
            whose = _replicas(silent) if silent else "the replicas"
            text = f"The contents of {whose} at the end are not known."
        else:
            found = VALID
            text = f"The contents of {_replicas(norm)} are equal after the run."
        return Verdict(found, EVENTUAL, len(history), 0, (), text)


def _replicas(replicas: list[int]) -> str:
    names = ", ".join(str(replica) for replica in sorted(replicas))
    return f"replica{'s' if len(replicas) > 1 else ''} {names}"
