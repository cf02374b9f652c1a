"""What a checker says of a history, and the one place that asks the checkers.

A verdict is ``valid``, ``invalid`` (with a witness: operations that break the level by
themselves) or ``unknown`` (undecided). Unknown is never success.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Protocol

from orchestrator.core import levels
from orchestrator.core.history import NOTHING, PHASE_NAMES, History
from orchestrator.core.machine import CAS, KIND_NAMES, OUTCOME_NAMES, TRANSACTION
from orchestrator.core.models import MODELS, REGISTER, STEPS_MAX
from orchestrator.core.models import canonical as canonical_model
from orchestrator.core.one_clock import OF_REAL_TIME, views
from orchestrator.core.registry import Family, plugin, plugins
from orchestrator.errors import ConfigError

VALID: Final = "valid"
INVALID: Final = "invalid"
UNDECIDED: Final = "unknown"


@dataclass(frozen=True)
class Verdict:
    """One level's verdict.

    ``operations`` and ``keys`` count what the verdict rests on. ``witness`` holds operations
    as dicts with the field names of the history file, ordered by invocation; empty unless
    invalid. ``explanation`` is a sentence for people.
    """

    verdict: str
    level: str
    operations: int
    keys: int
    witness: tuple[Mapping[str, Any], ...]
    explanation: str


@dataclass(frozen=True)
class ClaimsVerdict:
    """All claimed levels together: ``valid`` only if every one of them is.

    ``strongest`` lists the levels found valid that no other one found valid implies, and
    ``verdicts`` what each checked level said, in the order of ``levels.LEVELS``.
    """

    verdict: str
    strongest: tuple[str, ...]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Evidence:
    """What a checker is told besides the history.

    ``model``: which kind of object each key is (register, cas-register, kv, append, counter,
    set, queue, txn). ``digests[i]`` fingerprints the contents of replica i at the end ("": not
    known). ``uncertainty_ns`` bounds how far a time of a client may be off; ``clocks[i]`` names the
    clock of client i, and times of one clock are exact against each other (empty: nothing is
    known of that). ``steps_max`` bounds a search; one that runs out is ``unknown``.
    ``failed_cas_observed``: an unsuccessful cas saw another value than the one it expected at
    some moment of its interval (False: it says nothing).
    """

    model: str = REGISTER
    digests: Sequence[str] = ()
    uncertainty_ns: int = 0
    clocks: Sequence[str] = ()
    steps_max: int = STEPS_MAX
    failed_cas_observed: bool = True


class Checker(Protocol):
    """Decides whether a history satisfies one level.

    ``models`` names the models that it serves, ``unique_values`` those of them for which written
    values have to differ from each other and from the initial one: where they do not, a history
    file is refused before the checker sees it, and a run is ``unknown``.
    """

    models: ClassVar[frozenset[str]] = frozenset({REGISTER})
    unique_values: ClassVar[frozenset[str]] = frozenset({REGISTER})

    def __init__(self, params: Any) -> None: ...

    @abstractmethod
    def check(self, history: History, evidence: Evidence) -> Verdict:
        """VALID, INVALID with a minimal witness, or UNDECIDED."""


def check(history: History, level: str, evidence: Evidence = Evidence()) -> Verdict:
    """The verdict of the checker of ``level`` (aliases are understood).

    Raises ConfigError for a word that is no level, and for a model that the level's checker
    does not serve. A level without a checker is ``unknown``.
    """
    name = levels.canonical(level)
    model = canonical_model(evidence.model)
    if name == levels.NONE:
        return Verdict(VALID, name, 0, 0, (), "Nothing is asked of the history.")
    if name not in plugins(Family.CHECKER):
        return Verdict(UNDECIDED, name, 0, 0, (), f"There is no checker for level {name!r}.")
    check_served(name, model)
    found = plugin(Family.CHECKER, name)
    checker: Checker = found.implementation(found.params())
    verdict = checker.check(history, evidence)
    if verdict.verdict == VALID and evidence.uncertainty_ns and name in OF_REAL_TIME:
        return _by_one_clock(checker, history, evidence) or verdict
    return verdict


def _by_one_clock(checker: Checker, history: History, evidence: Evidence) -> Verdict | None:
    """What one clock alone shows to be broken, though several together cannot tell."""
    if evidence.model != REGISTER or history.values is not None:
        return None
    exact = replace(evidence, uncertainty_ns=0)
    for seen in views(history, evidence.clocks):
        verdict = checker.check(seen, exact)
        if verdict.verdict == INVALID:
            text = f"{verdict.explanation} (By the clock of one host alone.)"
            return replace(verdict, explanation=text)
    return None


def check_served(level: str, model: str, *, path: str = "model") -> None:
    """Refuse, by ConfigError, a model that the checker of ``level`` (without alias) has not."""
    served = models_of(level)
    if model not in served:
        raise ConfigError(
            f"level {level!r} is not defined here for model {model!r}",
            path=path,
            hint="allowed: " + ", ".join(sorted(served)),
        )


def models_of(level: str) -> frozenset[str]:
    """The models that the checker of ``level`` (without alias) serves; all where there is none."""
    found = plugins(Family.CHECKER).get(level)
    if found is None:
        return frozenset(MODELS)
    served: frozenset[str] = getattr(found.implementation, "models", Checker.models)
    return served


def check_claims(
    history: History,
    claimed: Iterable[str],
    evidence: Evidence = Evidence(),
) -> ClaimsVerdict:
    """Check every claimed level (nothing claimed is the level ``none``)."""
    asked = {levels.canonical(level) for level in claimed} or {levels.NONE}
    verdicts = tuple(check(history, level, evidence) for level in levels.LEVELS if level in asked)
    said = [verdict.verdict for verdict in verdicts]
    overall = next((worst for worst in (INVALID, UNDECIDED) if worst in said), VALID)
    held = [levels.NONE, *(found.level for found in verdicts if found.verdict == VALID)]
    return ClaimsVerdict(overall, tuple(levels.strongest(held)), verdicts)


def operation(history: History, row: int) -> dict[str, Any]:
    """One row with the field names of the history file.

    The value is the file's own where the history has values, else its identity; a transaction
    has ``ops`` instead, and a cas ``expected``, too.
    """
    kind = int(history.kind[row])
    value = value_of(history, int(history.value_id[row]))
    named: dict[str, Any] = {
        "session": int(history.session[row]),
        "sequence": int(history.sequence[row]),
        "op": KIND_NAMES[kind],
        "key": key_text(history, int(history.key[row])),
        "value": value,
        "invoked_ns": int(history.invoked_ns[row]),
        "returned_ns": _known(history.returned_ns[row]),
        "status": OUTCOME_NAMES[int(history.outcome[row])],
        "version": _known(history.version[row]),
        "node": _known(history.node[row]),
        "phase": PHASE_NAMES[int(history.phase[row])],
    }
    if kind == CAS and history.expected_id is not None:
        named["expected"] = value_of(history, int(history.expected_id[row]))
    if kind == TRANSACTION and isinstance(value, tuple):
        del named["key"], named["value"]
        named["ops"] = [dict(zip(("op", "key", "value"), one, strict=True)) for one in value]
    return named


def value_of(history: History, identity: int) -> Any:
    """The value with this identity; without values, the identity itself (None: nothing)."""
    if identity == NOTHING:
        return None
    return identity if history.values is None else history.values[identity]


def _known(number: Any) -> int | None:
    return None if number < 0 else int(number)


def key_text(history: History, key: int) -> str:
    """The name of a key, readable whatever its bytes are."""
    return history.key_names[key].decode("utf-8", "backslashreplace")
