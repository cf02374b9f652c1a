"""The kinds of object that a history may be about: their sequential specifications.

A specification says what an object does when operations come one after the other (Herlihy and
Wing, TOPLAS 1990, section 2). Here it is a function from states to states for each operation
with its known result: :func:`step` gives the state after it, or ILLEGAL where an object in that
state would have answered otherwise. States and values are hashable.

=============  ==========================  ===================================================
model          operations                  state
=============  ==========================  ===================================================
register       read write                  the value
cas-register   read write cas              the value
kv             read write append           the value of the key; append concatenates text
append         read append                 a list; a read returns all of it
counter        read incr                   a number
set            read add                    a set; a read returns its elements in any order
queue          enqueue dequeue             a list, first in first out; dequeue of nothing: null
txn            txn                         many registers or lists, one step a transaction
=============  ==========================  ===================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from orchestrator.core.machine import (
    ADD,
    APPEND,
    CAS,
    DEQUEUE,
    ENQUEUE,
    FAIL,
    INCREMENT,
    OK,
    READ,
    SCAN,
    TRANSACTION,
    WRITE,
)
from orchestrator.errors import ConfigError, suggestion

REGISTER: Final = "register"
CAS_REGISTER: Final = "cas-register"
KV: Final = "kv"
APPEND_LIST: Final = "append"
COUNTER: Final = "counter"
SET: Final = "set"
QUEUE: Final = "queue"
TXN: Final = "txn"

OPERATIONS: Final[Mapping[str, frozenset[int]]] = {
    REGISTER: frozenset({READ, WRITE, SCAN}),
    CAS_REGISTER: frozenset({READ, WRITE, CAS, SCAN}),
    KV: frozenset({READ, WRITE, APPEND, SCAN}),
    APPEND_LIST: frozenset({READ, APPEND}),
    COUNTER: frozenset({READ, INCREMENT}),
    SET: frozenset({READ, ADD}),
    QUEUE: frozenset({ENQUEUE, DEQUEUE}),
    TXN: frozenset({TRANSACTION, READ, WRITE, APPEND}),
}
"""The kinds of operation that a history of each model may have (scans are passed over)."""
MODELS: Final = tuple(OPERATIONS)
STEPS_MAX: Final = 2_000_000
"""What a search may take, where nobody says otherwise."""
COLLECTIONS: Final = frozenset({APPEND_LIST, SET, QUEUE})
"""Models whose whole state is a list in a history file."""


class _Illegal:
    def __repr__(self) -> str:
        return "ILLEGAL"


ILLEGAL: Final = _Illegal()
State = Any
Step = Callable[[State], State]


class Call(NamedTuple):
    """One operation as a specification sees it.

    ``value`` is its argument or, of a read or dequeue, its result. ``outcome``: OK; UNKNOWN for
    one whose result is not known, taken as having happened; FAIL for a cas that found another
    value than ``expected``.
    """

    kind: int
    value: Any
    expected: Any
    outcome: int

    @property
    def reads_only(self) -> bool:
        """Whether it never changes a state in which it is legal."""
        return (
            self.kind in {READ, SCAN}
            or (self.kind == CAS and (self.outcome == FAIL or self.value == self.expected))
            or (self.kind == DEQUEUE and self.outcome == OK and self.value is None)
        )


def canonical(model: str, *, path: str = "model") -> str:
    """The model itself; an unknown word raises ConfigError with a suggestion."""
    if model not in MODELS:
        raise ConfigError(
            f"unknown model {model!r}", path=path, hint=suggestion(str(model), MODELS)
        )
    return model


def initial_state(model: str, value: Any) -> State:
    """The state of an object that holds ``value`` (null: nothing)."""
    match model:
        case "append" | "queue":
            return () if value is None else tuple(value)
        case "set":
            return frozenset(() if value is None else value)
        case "counter":
            return 0 if value is None else value
        case "kv":
            return _text(value)
    return value


def step(model: str, call: Call) -> Step:
    """What ``call`` does to a state of ``model``."""
    return _STEPS[model, call.kind](model, call)


def _text(value: Any) -> str:
    """Texts: nothing is the empty one."""
    return "" if value is None else str(value)


def _read(model: str, call: Call) -> Step:
    if model == SET and len(frozenset(call.value or ())) != len(call.value or ()):
        return lambda state: ILLEGAL  # an element came back twice
    wanted = initial_state(model, call.value)
    return lambda state: state if state == wanted else ILLEGAL


def _write(model: str, call: Call) -> Step:
    value = initial_state(model, call.value)
    return lambda state: value


def _cas(model: str, call: Call) -> Step:
    value, expected = call.value, call.expected
    if call.outcome == FAIL:
        return lambda state: ILLEGAL if state == expected else state
    return lambda state: value if state == expected else ILLEGAL


def _concatenate(model: str, call: Call) -> Step:
    tail = _text(call.value)
    return lambda state: state + tail


def _append(model: str, call: Call) -> Step:
    tail = (call.value,)
    return lambda state: state + tail


def _increment(model: str, call: Call) -> Step:
    by = _amount(call)
    return lambda state: state + by


def _add(model: str, call: Call) -> Step:
    new = frozenset({call.value})
    return lambda state: state | new


def _dequeue(model: str, call: Call) -> Step:
    value = call.value
    if call.outcome != OK:
        return lambda state: state[1:]
    if value is None:
        return lambda state: ILLEGAL if state else state
    return lambda state: state[1:] if state and state[0] == value else ILLEGAL


_STEPS: Final[Mapping[tuple[str, int], Callable[[str, Call], Step]]] = {
    **{(model, READ): _read for model in (REGISTER, CAS_REGISTER, KV, APPEND_LIST, COUNTER, SET)},
    **{(model, WRITE): _write for model in (REGISTER, CAS_REGISTER, KV)},
    (CAS_REGISTER, CAS): _cas,
    (KV, APPEND): _concatenate,
    (APPEND_LIST, APPEND): _append,
    (COUNTER, INCREMENT): _increment,
    (SET, ADD): _add,
    (QUEUE, ENQUEUE): _append,
    (QUEUE, DEQUEUE): _dequeue,
}


def growth(
    model: str, changes: Iterable[Call]
) -> Callable[[Any], tuple[float, Callable[[State], bool]]] | None:
    """Of an object that only grows by ``changes``, what a read tells of the states before it.

    Maps what a read returned to its size, and to a test of whether a state may grow into it.
    None where the object may also shrink, or be replaced.
    """
    if model == COUNTER and all(_amount(call) >= 0 for call in changes):
        return _counted
    if model in {APPEND_LIST, SET} or (model == KV and all(c.kind == APPEND for c in changes)):
        return {APPEND_LIST: _listed, SET: _contained, KV: _begun}[model]
    return None


def _counted(value: Any) -> tuple[float, Callable[[State], bool]]:
    wanted = initial_state(COUNTER, value)
    return float(wanted), lambda state: bool(state <= wanted)


def _listed(value: Any) -> tuple[float, Callable[[State], bool]]:
    wanted = initial_state(APPEND_LIST, value)
    return len(wanted), lambda state: bool(wanted[: len(state)] == state)


def _contained(value: Any) -> tuple[float, Callable[[State], bool]]:
    wanted = initial_state(SET, value)
    return len(wanted), lambda state: bool(state <= wanted)


def _begun(value: Any) -> tuple[float, Callable[[State], bool]]:
    wanted = _text(value)
    return len(wanted), wanted.startswith


def _amount(call: Call) -> Any:
    return 1 if call.value is None else call.value
