"""Primary-backup, chain and CRAQ with one rule broken each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from twins import Twin

from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import (
    OK,
    READ,
    ClaimContext,
    ClusterView,
    Effect,
    Event,
    Machine,
    MachineContext,
    Op,
    Reply,
    Send,
    Started,
)
from orchestrator.protocols._copies import Copy
from orchestrator.protocols._order import Acknowledge, Replicate, Vow
from orchestrator.protocols._views import Configuration, OneMayBeMissing, ViewParams
from orchestrator.protocols.chain import Chain
from orchestrator.protocols.craq import Craq
from orchestrator.protocols.primary_backup import Params, PrimaryBackup

# --- rules of views that all three keep -------------------------------------------------


class _IgnoresLease(Copy):
    """A node that was put out and does not know it serves for a long time yet."""

    def __init__(self, context: MachineContext, params: Any) -> None:
        super().__init__(context, params)  # type: ignore[call-arg]
        self._membership._lease_ns *= 1000


class IgnoresLeaseBackup(_IgnoresLease, PrimaryBackup):
    """A deposed primary serves reads."""


class IgnoresLeaseChain(_IgnoresLease, Chain):
    """A deposed tail serves reads."""


class IgnoresLeaseCraq(_IgnoresLease, Craq):
    """A node that was cut off takes its keys for clean."""


class Hasty(Configuration):
    """Does not wait for the leases that it granted."""

    def __init__(self, context: MachineContext, params: ViewParams) -> None:
        super().__init__(context, params)
        self._allowance_ns = 2 * params.heartbeat


class HastyBackup(PrimaryBackup):
    @staticmethod
    def authority_of(params: Params) -> type[Machine] | None:
        return Hasty


class HastyChain(Chain):
    @staticmethod
    def authority_of(params: Any) -> type[Machine] | None:
        return Hasty


class HastyCraq(Craq):
    @staticmethod
    def authority_of(params: Any) -> type[Machine] | None:
        return Hasty


class _AnyEpoch(Copy):
    """Takes messages of other views for ones of its own."""

    def _received(self, source: int, message: Any, now_ns: int, effects: list[Effect]) -> None:
        epoch = self._membership.view.epoch
        if getattr(message, "epoch", epoch) != epoch:
            message = msgspec.structs.replace(message, epoch=epoch)
        super()._received(source, message, now_ns, effects)


class AnyEpochBackup(_AnyEpoch, PrimaryBackup):
    pass


class AnyEpochChain(_AnyEpoch, Chain):
    pass


class BreaksSeal(PrimaryBackup):
    """Reports what it holds, and goes on taking writes in the view that it has sealed."""

    def _replicate(self, source: int, message: Replicate, effects: list[Effect]) -> None:
        sealed, self._membership.sealed = self._membership.sealed, False
        super()._replicate(source, message, effects)
        self._membership.sealed = sealed


class ForgetsSeal(PrimaryBackup):
    """Comes back from a crash without what it vowed."""

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        if isinstance(event, Started):
            event = Started([record for record in event.records if not isinstance(record, Vow)])
        return super().handle(event, now_ns)


class KeepsWhatNobodyHas(PrimaryBackup):
    """Put out of the view, it keeps writes that the others may have gone on without."""

    def _leave(self, effects: list[Effect]) -> None:
        order = self._order
        self._commit_through(order.last, effects)
        super()._leave(effects)


class TellsBeforeItPersists(Configuration):
    """After a crash it issues another view under an epoch that it has used."""

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        if isinstance(event, Started):
            event = Started(event.records[:-1])
        return super().handle(event, now_ns)


class ForgetfulAuthority(PrimaryBackup):
    """Its authority forgets the last view that it issued."""

    @staticmethod
    def authority_of(params: Params) -> type[Machine] | None:
        return TellsBeforeItPersists


# --- primary-backup ---------------------------------------------------------------------


class _InOrder(OneMayBeMissing):
    """The next backup follows, whatever it holds."""

    def _suffice(self, held: Mapping[int, int]) -> bool:
        return len(held) >= self._needed(len(self.view.members))

    def _issue(self, held: dict[int, int], now_ns: int, effects: list[Effect]) -> None:
        least = min(held.values())
        super()._issue(dict.fromkeys(held, least), now_ns, effects)


class PromotesTheNext(PrimaryBackup):
    """Promotes a backup that is not up to date."""

    @staticmethod
    def authority_of(params: Params) -> type[Machine] | None:
        return _InOrder


class AnyBackupWillDo(PrimaryBackup):
    """In semi_sync mode it takes any one member for one that has every write."""

    @staticmethod
    def authority_of(params: Params) -> type[Machine] | None:
        return Configuration


class ClaimsTooMuch(PrimaryBackup):
    """Says that failover in async mode loses nothing."""

    @staticmethod
    def claims(params: Params, context: ClaimContext) -> frozenset[str]:
        return frozenset({LINEARIZABLE})


class SendsUnflushed(PrimaryBackup):
    """Its backups may hold writes that a crash takes from the primary."""

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        return [
            Send(effect.target, effect.message, overlap=True) if type(effect) is Send else effect
            for effect in super().handle(event, now_ns)
        ]


class ServesBeforeItKnows(PrimaryBackup):
    """A primary that came back serves reads before it knows what was committed."""

    def _read_strongly(self, handle: Any, op: Op, serving: bool, effects: list[Effect]) -> None:
        self._floor = 0
        super()._read_strongly(handle, op, serving, effects)


# --- chains -----------------------------------------------------------------------------


class AnswersFromTheMiddle(Chain):
    """A middle node has the head answer a write that the tail does not have."""

    def _commit(self, effects: list[Effect]) -> None:
        members = self._membership.view.members
        if self._node in members[1:]:
            self._commit_through(self._order.durable, effects)
            message = Acknowledge(
                self._membership.view.epoch, self._order.last, self._order.committed
            )
            effects.append(Send(members[0], message))


class ReadsInTheMiddle(Chain):
    """Every node serves strong reads from what it knows to be committed."""

    def _read_strongly(self, handle: Any, op: Op, serving: bool, effects: list[Effect]) -> None:
        if serving:
            self._state.serve(handle, op, self._order.committed, effects)
        else:
            super()._read_strongly(handle, op, serving, effects)

    @staticmethod
    def candidates(params: Any, op: Op, view: ClusterView) -> Sequence[int]:
        return Craq.candidates(params, op, view)


class TailServesEarly(Chain):
    """A new tail serves reads before it has caught up."""

    def _read_strongly(self, handle: Any, op: Op, serving: bool, effects: list[Effect]) -> None:
        self._floor = 0
        super()._read_strongly(handle, op, serving, effects)


class ServesDirty(Craq):
    """Answers a read of a dirty key with the write that may not be committed."""

    def _read_strongly(self, handle: Any, op: Op, serving: bool, effects: list[Effect]) -> None:
        order = self._order
        pending = order.from_position(order.committed, order.last)
        newest = next((each for each in reversed(pending) if each.key == op.key), None)
        if op.kind == READ and serving and newest is not None:
            effects.append(Reply(handle, OK, newest.value, order.last))
        else:
            super()._read_strongly(handle, op, serving, effects)


class TakesDirtyForClean(Craq):
    """Answers a read of a dirty key without asking the tail."""

    def _clean(self, op: Op) -> bool:
        return True


def _twin(name: str, machine: type[Any], protocol: str, why: str, **fixed: Any) -> Twin:
    return Twin(name, machine, protocol, why, {"keep": 8} | fixed)


_LEASE = "somebody who cannot know of the new view answers with what was true in the old one"

TWINS = [
    _twin("primary_backup_ignores_lease", IgnoresLeaseBackup, "primary_backup", _LEASE),
    _twin("chain_ignores_lease", IgnoresLeaseChain, "chain", _LEASE),
    _twin("craq_ignores_lease", IgnoresLeaseCraq, "craq", _LEASE),
    _twin("primary_backup_hasty_successor", HastyBackup, "primary_backup", _LEASE),
    _twin("chain_hasty_successor", HastyChain, "chain", _LEASE),
    _twin("craq_hasty_successor", HastyCraq, "craq", _LEASE),
    _twin(
        "primary_backup_any_epoch",
        AnyEpochBackup,
        "primary_backup",
        "a deposed primary's writes get places that the new one gave to others",
    ),
    _twin(
        "chain_any_epoch",
        AnyEpochChain,
        "chain",
        "a deposed head's writes get places that the new one gave to others",
    ),
    _twin(
        "primary_backup_breaks_seal",
        BreaksSeal,
        "primary_backup",
        "a write is acknowledged by a backup that had reported to hold less",
        mode="semi_sync",
    ),
    _twin(
        "primary_backup_forgets_vows",
        ForgetsSeal,
        "primary_backup",
        "a node is back in a view that is over, and acknowledges what a deposed primary sends",
        mode="semi_sync",
    ),
    _twin(
        "primary_backup_keeps_what_nobody_has",
        KeepsWhatNobodyHas,
        "primary_backup",
        "the copy of a node that comes back differs for good",
    ),
    _twin(
        "primary_backup_forgetful_authority",
        ForgetfulAuthority,
        "primary_backup",
        "two views have one epoch",
    ),
    _twin(
        "primary_backup_promotes_the_next",
        PromotesTheNext,
        "primary_backup",
        "the new primary lacks writes that another backup had acknowledged",
        mode="semi_sync",
    ),
    _twin(
        "primary_backup_any_backup_will_do",
        AnyBackupWillDo,
        "primary_backup",
        "of the two that had a write both are gone",
        mode="semi_sync",
    ),
    _twin(
        "primary_backup_async_claims_too_much",
        ClaimsTooMuch,
        "primary_backup",
        "only the primary had the write",
        mode="async",
    ),
    _twin(
        "primary_backup_sends_unflushed",
        SendsUnflushed,
        "primary_backup",
        "a backup holds a write that its primary has lost",
        failover=False,
    ),
    _twin(
        "primary_backup_serves_before_it_knows",
        ServesBeforeItKnows,
        "primary_backup",
        "what was read before a crash is not there after it",
    ),
    _twin(
        "chain_answers_from_the_middle",
        AnswersFromTheMiddle,
        "chain",
        "a write is answered that a read at the tail does not see",
    ),
    _twin(
        "chain_reads_in_the_middle",
        ReadsInTheMiddle,
        "chain",
        "a middle node does not know yet what the tail has answered with",
    ),
    _twin(
        "chain_tail_serves_early",
        TailServesEarly,
        "chain",
        "a new tail lacks what was committed before",
    ),
    _twin(
        "craq_serves_dirty",
        ServesDirty,
        "craq",
        "a node nearer to the head shows a write that the next read elsewhere does not",
    ),
    _twin(
        "craq_takes_dirty_for_clean",
        TakesDirtyForClean,
        "craq",
        "the tail has committed the write already",
    ),
]
