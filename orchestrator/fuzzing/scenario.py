"""A scenario: everything that decides one simulation under faults, spelled out.

A scenario file is YAML. It holds the configuration of the store, each operation with its time
and each fault with its time and targets, so that it means the same whatever a seed would draw
tomorrow. The one thing left to chance, the delay and loss of each message, comes from
``seed``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
import yaml  # type: ignore[import-untyped]

from orchestrator.core.machine import APPEND, KIND_NAMES, READ, WRITE
from orchestrator.core.units import format_duration, parse_duration_ns
from orchestrator.errors import DataError, InputError

LEADER: Final = "leader"
"""A target: whoever leads (or is primary, or head) when the fault strikes."""


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One operation; ``level``: what it asks for (empty: nothing). A ``cas`` is a read and, at
    once, a compare-and-set of what it found. ``parts``: of a transaction, as in ``r0 a3``: it
    reads key 0, then appends to (``w``: writes) key 3.
    """

    at_ns: int
    op: str
    key: int
    level: str = ""
    parts: str = ""

    @property
    def micro_operations(self) -> tuple[tuple[int, int], ...]:
        """(kind, key) of each part; KeyError or ValueError where one is none."""
        return tuple((PARTS[part[0]], int(part[1:])) for part in self.parts.split())


PARTS: Final = {"r": READ, "w": WRITE, "a": APPEND}
"""Micro-operations by their letter in a scenario."""


class Fault(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Something goes wrong from ``at_ns`` to ``until_ns``.

    ``crash``: the node loses all but its durable records and the first ``survivors`` behind
    them. ``pause``: it stands still. ``cut``: messages between it and ``others`` are lost, one
    way or both (``direction``). ``storm``: of all messages between machines the share ``loss``
    is lost, the share ``duplicates`` arrives twice and the share ``late`` about ``after_ns``
    later, and of all requests of clients the share ``repeats`` is asked at another node, too.
    ``ambush``: whoever comes to lead crashes, about ``after_ns`` later, and stays away for about
    as long; until then the share ``loss`` of the others hears nothing of it. With a ``command``
    it is told that about one of the others as soon as it leads. ``command``: an operator's
    command about the node, told to everybody.
    """

    kind: Literal["crash", "pause", "cut", "storm", "ambush", "command"]
    at_ns: int
    until_ns: int = 0
    node: int | Literal["leader"] = 0
    others: tuple[int, ...] = ()
    direction: Literal["both", "out", "in"] = "both"
    survivors: int = 0
    loss: float = 0.0
    duplicates: float = 0.0
    late: float = 0.0
    repeats: float = 0.0
    after_ns: int = 0
    command: str = ""


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One simulation. ``system`` and ``client`` are parts of a configuration.

    Faults end at ``heal_ns``; what starts at or after ``final_ns`` must succeed.
    """

    protocol: str
    seed: int
    system: dict[str, Any]
    client: dict[str, Any]
    clients: int
    keys: int
    heal_ns: int
    final_ns: int
    operations: tuple[Step, ...]
    faults: tuple[Fault, ...]

    @property
    def nodes(self) -> int:
        """How many nodes hold data."""
        return int(self.system.get("nodes") or self.system["replicas"])


_DURATIONS: Final = ("at_ns", "until_ns", "after_ns", "heal_ns", "final_ns")


def _human(name: str, value: Any) -> tuple[str, Any]:
    if name in _DURATIONS:
        return name.removesuffix("_ns"), format_duration(value)
    return name, value


def dump(scenario: Scenario) -> str:
    """The text of a scenario file: one line an operation and a fault."""
    plain: dict[str, Any] = msgspec.to_builtins(scenario)
    operations, faults = plain.pop("operations"), plain.pop("faults")
    head = dict(_human(name, value) for name, value in plain.items())
    lines = [yaml.safe_dump(head, sort_keys=False, default_flow_style=None).rstrip()]
    lines.append("operations:")
    for at_ns, *rest in operations:
        while rest[-1] == "":
            rest.pop()
        words = [format_duration(at_ns), *(word if word != "" else "''" for word in rest)]
        lines.append("- [" + ", ".join(str(word) for word in words) + "]")
    lines.append("faults:" if faults else "faults: []")
    for fault in faults:
        pairs = dict(_human(name, value) for name, value in fault.items())
        lines.append("- " + _flow(pairs))
    return "\n".join(lines) + "\n"


def _flow(pairs: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(pairs), sort_keys=False, default_flow_style=True, width=10_000)
    return text.strip()


def load(path: str | os.PathLike[str]) -> Scenario:
    """Read a scenario file. Raises InputError (no such file) or DataError (its path, reason)."""
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8") as file:
            text = file.read()
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            # A few of them can stand for more than any memory holds.
            raise DataError("aliases are not allowed in a scenario", path=name)
        plain = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"cannot read the scenario: {error.strerror}", path=name) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        raise DataError("the scenario is no YAML", path=where) from error
    try:
        scenario = msgspec.convert(_exact(plain), Scenario)
    except (msgspec.ValidationError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"no scenario: {error}", path=name) from error
    _check(scenario, name)
    return scenario


def _exact(plain: Any) -> Any:
    """The same data with durations in nanoseconds."""
    if not isinstance(plain, dict):
        raise ValueError("a mapping is expected")
    exact = _timed(plain)
    exact["operations"] = [
        [parse_duration_ns(str(step[0])), *step[1:]] for step in plain.get("operations") or []
    ]
    exact["faults"] = [_timed(fault) for fault in plain.get("faults") or []]
    return exact


def _timed(mapping: Mapping[str, Any]) -> dict[str, Any]:
    human = {name.removesuffix("_ns"): name for name in _DURATIONS}
    return {
        human.get(name, name): parse_duration_ns(str(value)) if name in human else value
        for name, value in mapping.items()
    }


def _check(scenario: Scenario, path: str) -> None:
    for index, step in enumerate(scenario.operations):
        if step.op not in KIND_NAMES:
            known = ", ".join(KIND_NAMES)
            raise DataError(
                f"operation {index}: unknown op {step.op!r} (known: {known})", path=path
            )
        try:
            keys = [step.key, *(key for _, key in step.micro_operations)]
        except (KeyError, ValueError):
            what = f"operation {index}: {step.parts!r} is no transaction, such as 'r0 a3'"
            raise DataError(what, path=path) from None
        if not all(0 <= key < scenario.keys for key in keys):
            raise DataError(f"operation {index}: there is no key {max(keys)}", path=path)
    for index, fault in enumerate(scenario.faults):
        named = [fault.node, *fault.others]
        last = scenario.nodes + int((scenario.system.get("tier") or {}).get("nodes", 0))
        if any(isinstance(node, int) and not 0 <= node <= last for node in named):
            raise DataError(f"fault {index}: there is no such node", path=path)
