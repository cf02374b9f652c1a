"""A study's trials in Optuna's storage: asked for, told, counted, and never lost.

What a trial came to is kept as one attribute (its *outcome*: the row of the ``trials`` table)
that is written before Optuna is told. So a driver that is killed at any point leaves either a
trial with an outcome, which the next one completes, or one without, which is queued again.
Optuna's own states only serve the sampler: a trial that must not teach it is told as failed.

All methods expect :meth:`Leases.exclusive` to be held where they say so.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from orchestrator.errors import ConfigError, EnvironmentFailure
from orchestrator.store.place import is_full
from orchestrator.study.leases import FileLock, Leases
from orchestrator.study.space import Params, Sampler, SearchSpace, Values, key, suggest
from orchestrator.study.verdict import Outcome

JOURNAL: Final = "journal"
SQLITE: Final = "sqlite"
SQLITE_WAIT_S: Final = 30
_Direction = Literal["minimize", "maximize"]
_OUTCOME: Final = "outcome"
_QUEUED: Final = "queued"


def open_storage(kind: str, folder: Path, name: str) -> optuna.storages.BaseStorage:
    """The storage of one study below ``folder``; ``kind``: journal, sqlite or an SQLite URL."""
    try:
        if kind == JOURNAL:
            path = folder / f"{name}.journal"
            lock = _JournalLock(path)
            lock.acquire()
            lock.release()
            backend = JournalFileBackend(str(path), lock_obj=cast(Any, lock))
            return optuna.storages.JournalStorage(backend)
        url = f"sqlite:///{folder / name}.db" if kind == SQLITE else kind
        # Parallel drivers wait for each other instead of failing.
        wait = {"connect_args": {"timeout": SQLITE_WAIT_S}}
        return optuna.storages.RDBStorage(url, engine_kwargs=wait)
    except Exception as error:  # a damaged file fails in many ways, each backend's own
        if is_full(error):
            raise
        reason = str(error).partition("\n")[0]
        raise EnvironmentFailure(f"the study cannot be opened: {reason}", path=name) from error


def storage_file(kind: str, folder: Path, name: str) -> Path:
    """The file that :func:`open_storage` opens. ConfigError for any other kind of storage."""
    if kind in (JOURNAL, SQLITE):
        return folder / f"{name}.{'journal' if kind == JOURNAL else 'db'}"
    if kind.startswith("sqlite:///"):
        return Path(kind.removeprefix("sqlite:///"))
    raise ConfigError(
        f"unknown storage {kind!r}",
        path="--storage",
        hint=f"allowed: {JOURNAL}, {SQLITE}, sqlite:///FILE",
    )


class _JournalLock(FileLock):
    """Held while lines are appended, after what is there.

    A full disk, or a machine that lost power in mid-write, leaves half a line, which whoever
    comes next must not append to. Unlike Optuna's own locks it is free at once when the process
    that held it is killed.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(f"{journal}.lock")
        self._journal = journal

    def acquire(self) -> bool:
        super().acquire()
        try:
            self._drop_half_line()
        except BaseException:
            self.release()
            raise
        return True

    def _drop_half_line(self) -> None:
        if not self._journal.exists():
            return
        with self._journal.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            if file.read(1) not in (b"", b"\n"):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)


@dataclass(frozen=True)
class Asked:
    """A trial to be measured.

    ``values``: what to set in the config. ``sampled``: its params lie in the search space.
    ``losses``: how many drivers died while they measured it.
    """

    number: int
    trial: optuna.Trial
    values: Values
    is_default: bool
    sampled: bool
    losses: int


class Study:
    """One study as one driver sees it. Close it at the end."""

    def __init__(
        self,
        name: str,
        opening: Callable[[], optuna.storages.BaseStorage],
        space: SearchSpace,
        leases: Leases,
        *,
        direction: str,
        seed: int,
        startup: int,
    ) -> None:
        self.name = name
        self.space = space
        self._leases = leases
        self._known: Counter[str] = Counter()
        self._sampler = Sampler(seed, space, startup, self._is_new)
        with leases.exclusive():
            self._storage = opening()
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                direction=cast(_Direction, direction),
                sampler=self._sampler,
                load_if_exists=True,
            )
            if not self._trials():
                params, _ = space.default()
                self._queue(params, is_default=True, losses=0)

    def close(self) -> None:
        """Close the storage's connections."""
        if isinstance(self._storage, optuna.storages.RDBStorage):
            self._storage.remove_session()
            self._storage.engine.dispose()

    def noted(self, name: str, value: Any) -> Any:
        """What the study notes under ``name``: ``value``, unless it has noted something before."""
        with self._leases.exclusive():
            notes = self._study.user_attrs
            if name not in notes:
                self._study.set_user_attr(name, value)
            return notes.get(name, value)

    # --- looking ------------------------------------------------------------------------

    def _trials(self, *states: TrialState) -> Sequence[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)

    def outcomes(self) -> list[Outcome]:
        """What every finished trial came to, in the order of their numbers."""
        return [
            trial.user_attrs[_OUTCOME] for trial in self._trials() if _OUTCOME in trial.user_attrs
        ]

    def running(self) -> int:
        """How many trials are under way, with this driver and others."""
        return sum(_OUTCOME not in trial.user_attrs for trial in self._trials(TrialState.RUNNING))

    def _values(self, trial: FrozenTrial) -> Values | None:
        """The variant of a trial; None where its driver died before it was drawn."""
        if not trial.user_attrs.get("sampled", True):
            return self.space.default()[1]
        if len(trial.params) < len(self.space.axes):
            return None
        return self.space.values(trial.params)

    def _is_new(self, params: Params) -> bool:
        return key(self.space.values(params)) not in self._known

    def _look(self) -> None:
        """Learn which variants are measured, refused or under way.

        One that broke is tried once more, should the sampler still want it.
        """
        self._known.clear()
        failures: Counter[str] = Counter()
        for trial in self._trials():
            outcome = trial.user_attrs.get(_OUTCOME)
            values = outcome["params"] if outcome is not None else None
            if outcome is None and not trial.state.is_finished():
                values = self._values(trial)
            if values is None:
                continue
            name = key(values)
            failures[name] += outcome is not None and outcome["state"] == "failed"
            if failures[name] != 1:
                self._known[name] += 1

    # --- asking and telling; exclusive() is held ------------------------------------------

    def ask(self) -> Asked | None:
        """The next trial, leased; None where the search space holds nothing new."""
        self._look()
        trial = self._study.ask()
        self._leases.take(trial.number)
        marks = trial.user_attrs
        is_default, losses = bool(marks.get("is_default")), int(marks.get("losses", 0))
        if not marks.get("sampled", True):
            values = self.space.default()[1]
            return Asked(trial.number, trial, values, is_default, sampled=False, losses=losses)
        params = {
            path: suggest(trial, path, held) for path, held in self.space.distributions.items()
        }
        if self._sampler.exhausted:
            self._fail(trial.number)
            return None
        values = self.space.values(params)
        return Asked(trial.number, trial, values, is_default, sampled=True, losses=losses)

    def tell(self, asked: Asked, outcome: Outcome, constraints: Mapping[str, float]) -> bool:
        """Settle a trial; False where it was taken from this driver in the meantime."""
        if not self._leases.held(asked.number):
            return False
        known = asked.trial.constraints
        for name, value in constraints.items():
            if name not in known:
                asked.trial.set_constraint(name, value)
        asked.trial.set_user_attr(_OUTCOME, dict(outcome))
        self._settle(asked.number, outcome, asked.sampled)
        return True

    def _settle(self, number: int, outcome: Outcome, sampled: bool) -> None:
        value, state = outcome["value"], outcome["state"]
        if not sampled or state == "failed":
            self._study.tell(number, state=TrialState.FAIL)
        elif value is None:
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, value)
        self._leases.release(number)

    def _fail(self, number: int) -> None:
        self._study.tell(number, state=TrialState.FAIL)
        self._leases.release(number)

    def give_back(self, asked: Asked) -> None:
        """Let somebody else measure a trial, or this driver later."""
        if self._leases.held(asked.number):
            self._fail(asked.number)
            params = asked.trial.params if asked.sampled else None
            self._queue(params, is_default=asked.is_default, losses=asked.losses)

    def _queue(self, params: Params | None, *, is_default: bool, losses: int) -> None:
        """``params`` None: the config's own variant, which lies outside of the search space."""
        sampled = params is not None
        attributes = {"is_default": is_default, "sampled": sampled, "losses": losses}
        queued = dict(params or {})
        self._study.enqueue_trial(queued, user_attrs=attributes | {_QUEUED: queued})

    def reclaim(self) -> None:
        """Settle what dead drivers left behind: told where the outcome is known, else queued."""
        for trial in self._trials(TrialState.RUNNING):
            if self._leases.alive(trial.number):
                continue
            marks = trial.user_attrs
            sampled = bool(marks.get("sampled", True))
            if _OUTCOME in marks:
                self._settle(trial.number, marks[_OUTCOME], sampled)
                continue
            self._fail(trial.number)
            drawn = len(trial.params) == len(self.space.axes)
            params = trial.params if drawn else marks.get(_QUEUED)
            if params is not None:  # else it died before anything was drawn
                self._queue(
                    params if sampled else None,
                    is_default=bool(marks.get("is_default")),
                    losses=int(marks.get("losses", 0)) + 1,
                )
