"""Mutants of the machines: a comparison flipped, a guard dropped, a number off by one.

A mutant is the source of a protocol's modules with one place changed, compiled into a class of
its own. It is killed where a simulation under faults breaks what the protocol claims, or where
a golden scenario goes another way.
"""

from __future__ import annotations

import ast
import importlib
import random
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from test_golden import GOLDEN as FOLDER
from test_golden import NAMES, transcript

import orchestrator.protocols
from orchestrator.core.registry import Family, Plugin, _plugins, plugins
from orchestrator.fuzz import Wanted, simulate_seed
from orchestrator.fuzzing.profiles import PROFILES
from orchestrator.fuzzing.scenario import load

HOME = Path(orchestrator.protocols.__file__).parent
PACKAGE = "orchestrator.protocols"
SECONDS_MAX = 20.0
"""CPU time of one simulation; none of a right machine takes a tenth of that."""
GOLDEN = "golden"
COMPARED = 12
"""Simulations in which what clients see is compared."""

_FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OUTSIDE = (
    *("check", "candidates", "claims", "read_levels", "why_not", "validate", "contents"),
    *("reign", "decided", "held_after"),
)
"""Functions that say what is claimed or assert it, and are no behaviour of the machine."""


@dataclass(frozen=True)
class Mutation:
    """Place ``index`` of a module's places, and what is done there."""

    module: str
    index: int
    line: int
    what: str


# --- places -----------------------------------------------------------------------------


class _Mutator(ast.NodeTransformer):
    """Changes the place with number ``wanted`` (None: only lists all places)."""

    def __init__(self, wanted: int | None) -> None:
        self.wanted = wanted
        self.places: list[tuple[int, str]] = []
        self._inside = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.name in _OUTSIDE or node.name.startswith("__") or self._inside:
            return node
        self._inside = True
        node.body = [self.visit(each) for each in node.body]
        self._inside = False
        return node

    def _hit(self, line: int, what: str) -> bool:
        if not self._inside:
            return False
        self.places.append((line, what))
        return len(self.places) - 1 == self.wanted

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        for at, operator in enumerate(node.ops):
            flipped = _FLIPPED.get(type(operator))
            if flipped is not None and self._hit(node.lineno, f"flip {ast.unparse(node)}"):
                node.ops[at] = flipped()
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        for at, operand in enumerate(list(node.values)):
            if self._hit(node.lineno, f"drop {ast.unparse(operand)}"):
                left = [value for index, value in enumerate(node.values) if index != at]
                return left[0] if len(left) == 1 else ast.BoolOp(node.op, left)
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        if not node.orelse and self._hit(node.lineno, f"never: if {ast.unparse(node.test)}"):
            node.test = ast.Constant(False)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        one = isinstance(node.right, ast.Constant) and node.right.value == 1
        plain = isinstance(node.op, (ast.Add, ast.Sub))
        if one and plain and self._hit(node.lineno, f"off by one: {ast.unparse(node)}"):
            return node.left
        return node


def places(protocol: str) -> list[Mutation]:
    """Every place of a protocol's own modules that can be changed; no claim of one, and no
    ``reign``, ``decided`` or ``held_after``, by which it is judged.
    """
    found = []
    for module in (each for each in modules_of(protocol) if not each.endswith("_claims")):
        mutator = _Mutator(None)
        mutator.visit(ast.parse((HOME / f"{module}.py").read_text()))
        found += [
            Mutation(module, index, line, what) for index, (line, what) in enumerate(mutator.places)
        ]
    return found


def modules_of(protocol: str) -> list[str]:
    """The protocol's module and the private ones that it rests on."""
    found: list[str] = []

    def follow(module: str) -> None:
        if module in found:
            return
        found.append(module)
        for node in ast.walk(ast.parse((HOME / f"{module}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE + "."):
                follow(str(node.module).removeprefix(PACKAGE + "."))

    follow(protocol)
    return sorted(found)


# --- classes ----------------------------------------------------------------------------


def mutant(protocol: str, mutation: Mutation) -> type[Any]:
    """The protocol's class with one place changed; nothing that is loaded changes."""
    kept = {name: module for name, module in sys.modules.items() if name.startswith(PACKAGE + ".")}
    registered: dict[str, Plugin] = dict(_plugins[Family.PROTOCOL])
    try:
        for name in modules_of(protocol):
            sys.modules.pop(f"{PACKAGE}.{name}", None)
        path = HOME / f"{mutation.module}.py"
        tree = _Mutator(mutation.index).visit(ast.parse(path.read_text()))
        name = f"{PACKAGE}.{mutation.module}"
        module = types.ModuleType(name)
        module.__file__ = str(path)
        module.__package__ = PACKAGE
        sys.modules[name] = module
        exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), module.__dict__)
        importlib.import_module(f"{PACKAGE}.{protocol}")
        made: type[Any] = _plugins[Family.PROTOCOL][protocol].implementation
    finally:
        for name in [name for name in sys.modules if name.startswith(PACKAGE + ".")]:
            del sys.modules[name]
        sys.modules.update(kept)
        # An import leaves the module as an attribute of its package, too.
        for name, original in kept.items():
            setattr(sys.modules[PACKAGE], name.rpartition(".")[2], original)
        _plugins[Family.PROTOCOL].clear()
        _plugins[Family.PROTOCOL].update(registered)
    return made


def seen(protocol: str, machine: type[Any] | None, profile: str, seed: int) -> list[Any]:
    """What clients see in the simulation of a seed: outcome and value of each operation."""
    _, outcome = simulate_seed(Wanted(protocol, profile), seed, machine)
    history = outcome.history
    assert history is not None
    columns = (history.session, history.sequence, history.outcome, history.value_id)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


@dataclass(frozen=True)
class Fate:
    """What became of a mutant. ``killed_by``: a property that broke, GOLDEN, or empty: it lives."""

    mutation: Mutation
    changes_behaviour: bool
    killed_by: str


class Hangs(Exception):
    """The simulation of a mutant does not end."""


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raise Hangs after so much CPU time."""

    def ring(*_: Any) -> None:
        raise Hangs

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


def fate(protocol: str, mutation: Mutation, seeds: int) -> Fate:
    """Simulate until it breaks something, or until all seeds have passed.

    One that lives changes behaviour where clients see something else in some of these
    simulations. What costs messages or time alone does not.
    """
    machine = mutant(protocol, mutation)
    commanded = bool(plugins(Family.PROTOCOL)[protocol].implementation.commands)
    profiles = [profile for profile in PROFILES if commanded or profile != "membership"]
    try:
        for seed in range(seeds):
            with bounded(SECONDS_MAX):
                wanted = Wanted(protocol, profiles[seed % len(profiles)])
                _, outcome = simulate_seed(wanted, seed, machine)
            if outcome.violation is not None:
                return Fate(mutation, True, outcome.violation.property)
        kept = [name for name in NAMES if name.startswith(f"{protocol}-")]
        if any(told_by(name, machine) != told_by(name) for name in kept):
            return Fate(mutation, True, GOLDEN)
    except Exception as error:  # a machine that raises is as dead as can be
        return Fate(mutation, True, type(error).__name__)
    changes = any(
        seen(protocol, machine, "mixed", seed) != seen(protocol, None, "mixed", seed)
        for seed in range(COMPARED)
    )
    return Fate(mutation, changes, "")


def told_by(name: str, machine: type[Any] | None = None) -> str:
    """The transcript of a golden scenario."""
    return transcript(load(FOLDER / f"{name}.yaml"), machine)


def chosen(protocol: str, count: int) -> Iterator[Mutation]:
    """Some of all places, the same ones every time."""
    everywhere = places(protocol)
    yield from random.Random(protocol).sample(everywhere, min(count, len(everywhere)))
