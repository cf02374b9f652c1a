"""The one registry of plug-ins: a file that calls :func:`register` is all it takes to add one.

A plug-in is a class plus its ``Params`` dataclass. Registration is last-wins, because
``dataclass(slots=True)`` creates a class twice. Plug-ins of other distributions are found by
the entry point group ``archbench.plugins``; each entry point names a module to import.
"""

from __future__ import annotations

import enum
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

from orchestrator.errors import ConfigError, suggestion

ENTRY_POINT_GROUP = "archbench.plugins"


class Family(enum.Enum):
    """The kinds of plug-in; the value is the name that users see."""

    PROTOCOL = "protocol"
    BALANCER = "balancer"
    CACHE = "cache"
    ADMISSION = "admission"
    WORKLOAD = "workload"
    KEYS = "key_choice"
    VALUE_SIZE = "value_size"
    ARRIVAL = "arrival"
    DISTRIBUTION = "distribution"
    CHECKER = "checker"
    SYSTEM = "system"
    TRANSACTIONS = "transactions"
    SHARDING = "sharding"
    FAULT = "fault"
    QUEUE = "queue"
    LIMIT = "limit"
    PATTERN = "cache_pattern"
    AUTOSCALER = "autoscaler"


# Where the built-in plug-ins of a family live: every module of these packages is imported.
_HOMES = {
    Family.PROTOCOL: "orchestrator.protocols",
    Family.BALANCER: "orchestrator.balancers",
    Family.CACHE: "orchestrator.caches",
    Family.ADMISSION: "orchestrator.admissions",
    Family.WORKLOAD: "orchestrator.workloads",
    Family.KEYS: "orchestrator.keys",
    Family.VALUE_SIZE: "orchestrator.core.value_sizes",
    Family.ARRIVAL: "orchestrator.arrivals",
    Family.DISTRIBUTION: "orchestrator.core.distributions",
    Family.CHECKER: "orchestrator.checkers",
    Family.SYSTEM: "orchestrator.systems",
    Family.TRANSACTIONS: "orchestrator.transactions",
    Family.SHARDING: "orchestrator.shardings",
    Family.FAULT: "orchestrator.faults",
    Family.QUEUE: "orchestrator.queues",
    Family.LIMIT: "orchestrator.limits",
    Family.PATTERN: "orchestrator.patterns",
    Family.AUTOSCALER: "orchestrator.autoscalers",
}


@dataclass(frozen=True)
class NoParams:
    """For plug-ins without a parameter."""


@dataclass(frozen=True)
class Plugin:
    """One registered plug-in.

    ``claims`` maps a consistency level name to the condition under which it is claimed, as a
    sentence for the catalogue; what holds for a given configuration is computed by the
    plug-in itself.
    """

    family: Family
    name: str
    implementation: type[Any]
    params: type[Any]
    claims: dict[str, str]

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        text = (self.implementation.__doc__ or "").strip()
        return text.splitlines()[0].rstrip(".") if text else ""


_plugins: dict[Family, dict[str, Plugin]] = {family: {} for family in Family}
_loaded: dict[Family, bool] = dict.fromkeys(Family, False)

Implementation = TypeVar("Implementation", bound=type[Any])


def register(
    family: Family,
    name: str,
    *,
    params: type[Any] = NoParams,
    claims: dict[str, str] | None = None,
) -> Callable[[Implementation], Implementation]:
    """Class decorator that makes the class known as ``name`` in ``family``."""
    if not is_dataclass(params):
        raise TypeError(f"params of {family.value} {name!r} must be a dataclass")
    for field in fields(params):
        if field.name == "name":
            raise TypeError(f"{family.value} {name!r}: 'name' is taken by the slot itself")

    def decorate(implementation: Implementation) -> Implementation:
        _plugins[family][name] = Plugin(family, name, implementation, params, dict(claims or {}))
        return implementation

    return decorate


def _load(family: Family) -> None:
    if _loaded[family]:
        return
    home = importlib.import_module(_HOMES[family])
    for module in pkgutil.iter_modules(getattr(home, "__path__", [])):
        if not module.name.startswith("_"):
            importlib.import_module(f"{home.__name__}.{module.name}")
    _load_entry_points()
    # Only now: another thread that asks in the meantime must wait for the imports, too.
    _loaded[family] = True


_entry_points_loaded = False


def _load_entry_points() -> None:
    global _entry_points_loaded  # noqa: PLW0603 - import once a process
    if _entry_points_loaded:
        return
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        entry_point.load()
    _entry_points_loaded = True


def plugins(family: Family) -> dict[str, Plugin]:
    """All plug-ins of a family by name, sorted."""
    _load(family)
    return dict(sorted(_plugins[family].items()))


def plugin(family: Family, name: str, *, path: str | None = None) -> Plugin:
    """The plug-in ``name``; an unknown one raises ConfigError with a suggestion."""
    known = plugins(family)
    if name not in known:
        raise ConfigError(
            f"unknown {family.value} {name!r}", path=path, hint=suggestion(str(name), known)
        )
    return known[name]


@dataclass(frozen=True)
class Slot:
    """A chosen plug-in with its typed parameters, as the frozen config holds it."""

    family: Family
    name: str
    params: Any

    @property
    def implementation(self) -> type[Any]:
        """The registered class."""
        return plugin(self.family, self.name).implementation
