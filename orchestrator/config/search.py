"""The search space of a study: its paths, and their bounds in plain numbers.

Bounds are written in the unit of the path that they bound (``arrival.rate: {low: 500/s}``),
while a sampler wants numbers; an :class:`Axis` translates both ways. So it does for *wholes*: a
path to more than a single value (``system.cache: {choices: [null, {name: lru}]}``), of which a
sampler gets the text.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.config.build import bare, build, frozen
from orchestrator.config.paths import Part, assign, locate, parts_of, spelled
from orchestrator.config.render import render
from orchestrator.config.schema import CATEGORICAL, FLOAT, INT, Config, SearchRange
from orchestrator.config.shape import (
    Anything,
    Node,
    PluginName,
    PluginSlot,
    Quantity,
    Record,
    Scalar,
    joined,
)
from orchestrator.core.parameters import (
    CAPACITY,
    DURATION,
    FORMATTERS,
    LEAD,
    SIZE,
    Capacity,
    FrozenMapping,
)
from orchestrator.core.registry import plugins
from orchestrator.errors import ConfigError

_ROOT: Final = Record(Config)
_FIXED: Final = ("experiment", "tune")


@dataclass(frozen=True)
class Axis:
    """One searched path. ``low``, ``high`` and ``step`` are numbers in its canonical unit
    (ns, bytes, per second, entries; None for a categorical), ``choices`` as YAML writes them.
    ``wholes``: the same with every default written out, where the path is no single value.
    """

    path: str
    type: str
    low: int | float | None
    high: int | float | None
    step: int | float | None
    log: bool
    choices: tuple[Any, ...]
    quantity: str | None
    in_bytes: bool
    wholes: tuple[Any, ...] = ()

    @property
    def chooses(self) -> bool:
        """Whether its value decides which paths there are."""
        return bool(self.wholes) or self.path.endswith(".name")

    @property
    def sampled(self) -> tuple[Any, ...]:
        """What a sampler draws for each of the choices."""
        return tuple(map(_as_text, self.choices)) if self.wholes else self.choices

    def reached(self, value: Any) -> Any:
        """What is sampled for a whole as YAML writes it, or with its defaults written out; None
        where it is not among the choices.
        """
        for known in (self.choices, self.wholes):
            if value in known:
                return self.sampled[known.index(value)]
        return None

    def value(self, number: Any) -> Any:
        """A sampled number (or choice) as a value for ``ConfigSource.with_values``."""
        if self.wholes:
            return self.choices[self.sampled.index(number)]
        if self.type == CATEGORICAL or self.quantity is None:
            return render(Anything(), number)
        return _written(self.quantity, number, self.in_bytes)


def axes(config: Config) -> tuple[Axis, ...]:
    """The search space of a config, sorted by path.

    Raises ConfigError for a path that no variant of the study has, because neither the config
    nor another axis chooses the plug-in that it belongs to.
    """
    data = render(_ROOT, config)
    search = config.tune.search
    found = []
    for path in sorted(search):
        node, optional = _place_of(path, _searched_variants(path, search, data))
        found.append(_axis(path, search[path], node, optional))
    return tuple(found)


def canonical_search(
    search: Mapping[str, SearchRange], data: Any
) -> FrozenMapping[str, SearchRange]:
    """``search`` checked against the complete ``data``, its bounds in their shortest spelling.

    A path may belong to any plug-in of its slot's family: a single run or a sweep may choose
    another one than the study would.
    """
    canonical = {}
    for path, searched in search.items():
        variants = [*_searched_variants(path, search, data), *_all_variants(path, data)]
        node, optional = _place_of(path, variants)
        axis = _axis(path, searched, node, optional)
        changes: dict[str, Any] = {
            name: None if number is None else axis.value(number)
            for name, number in (("low", axis.low), ("high", axis.high), ("step", axis.step))
        }
        choices = tuple(map(frozen, axis.choices))
        canonical[path] = dataclasses.replace(searched, choices=choices, **changes)
    return FrozenMapping(canonical)


# --- where a path leads -----------------------------------------------------------------


def _place_of(path: str, variants: Iterable[Any]) -> tuple[Node, bool]:
    """The node that ``path`` leads to in the first variant that has it; may it be null."""
    place = f"tune.search.{path}"
    parts = parts_of(path)
    if parts[0].text in _FIXED:
        raise ConfigError("cannot be searched", path=place)
    refusal: ConfigError | None = None
    for variant in variants:
        try:
            node, optional = locate(_ROOT, variant, parts)
        except ConfigError as error:
            refusal = refusal or error
        else:
            return bare(node) or node, optional
    assert refusal is not None, "there is always the variant that the config itself is"
    raise ConfigError(refusal.message, path=place, hint=refusal.hint)


def _searched_variants(path: str, search: Mapping[str, SearchRange], data: Any) -> Iterator[Any]:
    """``data`` itself, then with each combination of what is searched above ``path``."""
    yield data
    names = sorted(
        (
            name
            for name in search
            if (name != path and name.endswith(".name") and path.startswith(name[:-4]))
            or path.startswith(f"{name}.")
        ),
        key=len,
    )
    if not names:
        return
    for choices in itertools.product(*(search[name].choices for name in names)):
        variant = data
        try:
            for name, choice in zip(names, choices, strict=True):
                variant = assign(_ROOT, variant, parts_of(name), choice)
        except ConfigError:
            continue  # refused where that axis itself is looked at
        yield variant


def _all_variants(path: str, data: Any) -> Iterator[Any]:
    """``data`` with each plug-in there is in the slots above ``path``."""
    parts = parts_of(path)
    variants = [data]
    for length in range(1, len(parts)):
        above = parts[:length]
        variants = [each for variant in variants for each in _switched(variant, above)]
    yield from variants


def _switched(variant: Any, parts: tuple[Part, ...]) -> list[Any]:
    """``variant`` once for each plug-in that the slot at ``parts`` could hold."""
    try:
        node, _ = locate(_ROOT, variant, parts)
    except ConfigError:
        return []
    if not isinstance(node, PluginSlot):
        return [variant]
    return [assign(_ROOT, variant, (*parts, Part("name")), name) for name in plugins(node.family)]


# --- bounds and choices -----------------------------------------------------------------


def _axis(path: str, searched: SearchRange, node: Node, optional: bool) -> Axis:
    place = f"tune.search.{path}"
    match node:
        case Quantity() | Scalar() | PluginName():
            pass
        case _:
            return _whole_axis(path, searched, node, optional)
    quantity = node.kind if isinstance(node, Quantity) else None
    if searched.type == CATEGORICAL:
        choices = tuple(
            _choice(node, choice, f"{place}.choices[{at}]", optional)
            for at, choice in enumerate(searched.choices)
        )
        return Axis(path, CATEGORICAL, None, None, None, False, choices, quantity, False)
    return _numeric_axis(path, searched, node, quantity, place)


def _whole_axis(path: str, searched: SearchRange, node: Node, optional: bool) -> Axis:
    place = f"tune.search.{path}"
    if searched.type != CATEGORICAL:
        raise ConfigError(
            "is no single value",
            path=place,
            hint=f"search one of the values below it, or use {CATEGORICAL!r} with whole choices",
        )
    choices = tuple(render(Anything(), choice) for choice in searched.choices)
    wholes = tuple(
        render(
            node, build(node, spelled(node, choice), f"{place}.choices[{at}]", optional=optional)
        )
        for at, choice in enumerate(choices)
    )
    return Axis(
        path, CATEGORICAL, None, None, None, False, choices, None, in_bytes=False, wholes=wholes
    )


def _as_text(choice: Any) -> str:
    """What a sampler can hold of it; of null, too, a text, since None stands for not reached."""
    return json.dumps(choice, sort_keys=True, separators=(",", ":"))


def _choice(node: Node, choice: Any, place: str, optional: bool) -> Any:
    parsed = build(node, choice, place, optional=optional)
    return render(node, parsed) if isinstance(node, Quantity) else parsed


def _numeric_axis(
    path: str, searched: SearchRange, node: Node, quantity: str | None, place: str
) -> Axis:
    if isinstance(node, PluginName) or (isinstance(node, Scalar) and node.type in (bool, str)):
        raise ConfigError(
            f"{searched.type!r} does not fit here", path=joined(place, "type"), hint=CATEGORICAL
        )
    if searched.type == FLOAT and isinstance(node, Scalar) and node.type is int:
        raise ConfigError(
            "this parameter is a whole number", path=joined(place, "type"), hint=f"use {INT!r}"
        )
    low, low_in_bytes = _number(node, searched.low, searched.type, joined(place, "low"))
    high, in_bytes = _number(node, searched.high, searched.type, joined(place, "high"))
    step = None
    if searched.step is not None:
        # A step is no value of the parameter, so the parameter's bounds do not hold for it.
        free = Scalar(node.type) if isinstance(node, Scalar) else node
        step, step_in_bytes = _number(free, searched.step, searched.type, joined(place, "step"))
        if step <= 0 or step_in_bytes != in_bytes:
            raise ConfigError(f"{searched.step!r} is no step", path=joined(place, "step"))
    if low_in_bytes != in_bytes:
        raise ConfigError("low and high must both be entries or both be bytes", path=place)
    if high < low:
        raise ConfigError(
            f"high {searched.high!r} is below low {searched.low!r}",
            path=joined(place, "high"),
            hint="low comes first",
        )
    if searched.log and low <= 0:
        raise ConfigError("a logarithmic range starts above 0", path=joined(place, "low"))
    return Axis(path, searched.type, low, high, step, searched.log, (), quantity, in_bytes)


def _number(node: Node, value: Any, kind: str, place: str) -> tuple[int | float, bool]:
    """A bound as a number, and whether it is a capacity in bytes."""
    parsed = build(node, value, place)
    in_bytes = isinstance(parsed, Capacity) and parsed.in_bytes
    number: int | float = parsed.amount if isinstance(parsed, Capacity) else parsed
    if kind == INT:
        if number != int(number):
            raise ConfigError(f"{value!r} is no whole number", path=place, hint=f"use {FLOAT!r}")
        return int(number), in_bytes
    return number, in_bytes


def _written(quantity: str, number: int | float, in_bytes: bool) -> Any:
    if quantity == CAPACITY:
        return FORMATTERS[CAPACITY](Capacity(round(number), in_bytes))
    exact = round(number) if quantity in (DURATION, LEAD, SIZE) else number
    return FORMATTERS[quantity](exact)
