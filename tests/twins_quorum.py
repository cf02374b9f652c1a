"""Quorums and ABD with one rule broken each."""

from __future__ import annotations

from twins import Twin

from orchestrator.core.levels import LINEARIZABLE, REGULAR
from orchestrator.core.machine import (
    ClaimContext,
    Effect,
    Event,
    MachineContext,
    Persist,
    Persisted,
)
from orchestrator.protocols._quorum_copies import Hints, copy_of
from orchestrator.protocols._quorum_messages import Kept, Pending
from orchestrator.protocols.abd import Abd
from orchestrator.protocols.abd import Params as AbdParams
from orchestrator.protocols.quorum import Params, Quorum


class ClaimsRegular(Quorum):
    """Says that reads are regular though R + W is not above N."""

    @staticmethod
    def claims(params: Params, context: ClaimContext) -> frozenset[str]:
        return frozenset({REGULAR})


class ClaimsLinearizable(Quorum):
    """Says that R + W above N makes reads linearizable."""

    @staticmethod
    def claims(params: Params, context: ClaimContext) -> frozenset[str]:
        return frozenset({LINEARIZABLE})


class ForgetsHints(Quorum):
    """A coordinator that restarts does not hand on what it had logged."""

    def _started(self, records: list[Kept]) -> None:
        super()._started(records)
        self._hints = Hints(self._rule.join)


class ReusesDots(Quorum):
    """Sends a dot before it is durable, and gives it again after a crash."""

    def __init__(self, context: MachineContext, params: Params) -> None:
        super().__init__(context, params)
        self._overlap = True


class SkipsWriteBack(Abd):
    """Answers a read from what a majority said, though it did not agree."""

    def _read(self, pending: Pending, effects: list[Effect]) -> None:
        self._reply_read(pending, effects)
        self._end(pending, effects)


class ForgetsTags(Abd):
    """Acknowledges tags and values that it never logs."""

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        for effect in super().handle(event, now_ns):
            if isinstance(effect, Persist):
                effects += super().handle(Persisted(effect.token), now_ns)
            else:
                effects.append(effect)
        return effects


class ReusesTags(Abd):
    """Tags are (number, node), unique only as long as the node remembers its numbers: they leave
    before they are logged, and after a crash it gives one of them to another value. A scenario on
    the bench shows it; no seed of the simulator was seen to.
    """

    def __init__(self, context: MachineContext, params: AbdParams) -> None:
        super().__init__(context, params)
        self._overlap = True
        self._number = 0

    def _write(self, pending: Pending, effects: list[Effect]) -> None:
        found = pending.found
        self._number = max(self._number, found.version >> 32 if found else 0) + 1
        tag = self._number << 32 | self._node + 1
        self._spread(pending, copy_of(pending.op, tag), effects)


TWINS = [
    Twin(
        "quorum_claims_regular",
        ClaimsRegular,
        "quorum",
        "R 1 + W 2 is not above N 3: a read may ask only the replica that missed the write",
        {"read_quorum": 1, "write_quorum": 2},
    ),
    Twin(
        "quorum_claims_linearizable",
        ClaimsLinearizable,
        "quorum",
        "nothing is written back: a later read finds an older value",
    ),
    Twin(
        "quorum_forgets_hints",
        ForgetsHints,
        "quorum",
        "a write whose coordinator crashed reaches some replicas only",
        {"repair": False},
    ),
    Twin(
        "quorum_reuses_dots",
        ReusesDots,
        "quorum",
        "two values have one dot, and replicas keep different ones for good",
        {"conflicts": "siblings"},
    ),
    Twin(
        "abd_skips_write_back",
        SkipsWriteBack,
        "abd",
        "a value that one read found is not there for the next",
        profiles=("isolation",),
    ),
    Twin(
        "abd_forgets_tags",
        ForgetsTags,
        "abd",
        "a majority that restarted knows nothing of an acknowledged write",
    ),
]
