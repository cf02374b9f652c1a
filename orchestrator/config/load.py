"""The way in: YAML files and ``path=value`` overrides to one typed, frozen configuration.

Layers, lowest first: the defaults of the schema and of the plug-ins' parameters, the file,
the overrides. Among overrides the more specific path wins, whatever the order; of two with
the same path the last. An override sets what stands at its path (a mapping replaces, it is
not merged). One that changes the ``name`` of a slot takes away the keys that the new plug-in
does not know, so ``system.protocol.name=raft`` works whatever protocol the file has; a key
that an override itself gives is never taken away but refused where it is unknown.

``${path}`` takes the value from elsewhere in the same configuration, defaults included; nothing
else is replaced, so no configuration reads the environment of whoever runs it.
"""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.config.build import build
from orchestrator.config.paths import assign, locate, parts_of, spelled
from orchestrator.config.render import render, resolved
from orchestrator.config.schema import Config
from orchestrator.config.search import canonical_search
from orchestrator.config.shape import Node, Quantity, Record
from orchestrator.core.parameters import CAPACITY, Capacity
from orchestrator.errors import ConfigError, InputError, suggestion

_ROOT: Final = Record(Config)


@dataclass(frozen=True)
class ConfigSource:
    """A configuration before it is typed: plain data as in the file, with all overrides.

    Sweeps and studies start from one source and build a variant for each set of values, so
    that a changed ``name`` of a slot brings the defaults of the new plug-in. ``mapping`` is
    never changed; ``origin`` is the file that it came from, if any.
    """

    mapping: Mapping[str, Any]
    origin: str | None = None

    @classmethod
    def read(cls, path: str | Path, *overrides: str) -> ConfigSource:
        """The source in a YAML file. InputError: no such file; ConfigError: bad YAML."""
        return cls(_read_yaml(Path(path)), str(path)).with_overrides(*overrides)

    @classmethod
    def of(cls, config: Config | ConfigSource | Mapping[str, Any]) -> ConfigSource:
        """The source of plain data, or of a config that is typed already."""
        if isinstance(config, ConfigSource):
            return config
        return cls(resolved(config) if isinstance(config, Config) else dict(config))

    def with_overrides(self, *overrides: str) -> ConfigSource:
        """This source with ``path=value`` texts applied; values are read as YAML."""
        return self.with_values(dict(parse_override(text) for text in overrides))

    def with_values(self, values: Mapping[str, Any]) -> ConfigSource:
        """This source with a value (as YAML would give it) set at each path."""
        settings = [(parts_of(path), value) for path, value in values.items()]
        settings.sort(key=lambda setting: (len(setting[0]), setting[0][-1].text != "name"))
        data: Any = self.mapping
        for parts, value in settings:
            data = assign(_ROOT, data, parts, value)
        return dataclasses.replace(self, mapping=data)

    def complete(self) -> dict[str, Any]:
        """Plain data with every default and every ``${...}`` filled in, not checked yet."""
        # Twice: an interpolation may bring in a mapping that leaves its defaults open.
        data: dict[str, Any] = spelled(_ROOT, _interpolated(spelled(_ROOT, self.mapping)))
        return data

    def build(self) -> Config:
        """The typed, frozen configuration; ConfigError says what is wrong where."""
        data = self.complete()
        config: Config = build(_ROOT, data, "")
        search = canonical_search(config.tune.search, data)
        return dataclasses.replace(config, tune=dataclasses.replace(config.tune, search=search))

    def knows(self, path: str) -> bool:
        """Whether ``path`` exists here, with the plug-ins that are chosen here."""
        try:
            self._at(path)
        except ConfigError:
            return False
        return True

    def _at(self, path: str) -> tuple[Node, bool]:
        return locate(_ROOT, self.complete(), parts_of(path))


def load(path: str | Path, *overrides: str) -> Config:
    """The configuration in a YAML file under ``path=value`` overrides.

    Raises InputError where the file cannot be read, and ConfigError, with the path of the
    first wrong value, what is allowed there and the likely meaning, for anything in it.
    """
    return ConfigSource.read(path, *overrides).build()


def load_mapping(mapping: Mapping[str, Any], *overrides: str) -> Config:
    """The configuration in plain data (as YAML would give it); errors as :func:`load`."""
    return ConfigSource.of(mapping).with_overrides(*overrides).build()


def override(source: Config | ConfigSource, values: Mapping[str, Any]) -> Config:
    """``source`` with values at paths, built."""
    return ConfigSource.of(source).with_values(values).build()


def parse_value(source: Config | ConfigSource, path: str, value: Any) -> Any:
    """What ``value``, written as in YAML, means at ``path``: ``5ms`` is 5_000_000 at a duration.

    Gives the canonical value that the typed config would hold (a Capacity for cache sizes).
    """
    node, optional = ConfigSource.of(source)._at(path)
    return build(node, spelled(node, value), path, optional=optional)


def format_value(source: Config | ConfigSource, path: str, value: Any) -> Any:
    """The inverse of :func:`parse_value`: how a canonical value is written at ``path``.

    A bare number at a cache size means entries.
    """
    node, _ = ConfigSource.of(source)._at(path)
    if node == Quantity(CAPACITY) and isinstance(value, int):
        value = Capacity(value, in_bytes=False)
    return render(node, value)


def parse_override(text: str) -> tuple[str, Any]:
    """``"system.replicas=3"`` -> ``("system.replicas", 3)``; the value is read as YAML."""
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ConfigError(f"malformed override {text!r}", hint="write path=value")
    parts_of(path)
    try:
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError, ValueError) as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(
            f"malformed override {text!r}: {problem}", path=path, hint="the value is read as YAML"
        ) from None
    return path, parsed["value"]  # type: ignore[index,call-overload]


def _read_yaml(path: Path) -> dict[Any, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("no such file", path=str(path), hint=_similar(path)) from None
    except UnicodeDecodeError:
        raise ConfigError("the file is not UTF-8 text", path=str(path)) from None
    except OSError as error:
        hint = "give a YAML file in it" if path.is_dir() else None
        message = f"cannot read the file: {error.strerror}"
        raise InputError(message, path=str(path), hint=hint) from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, place: str) -> dict[Any, Any]:
    """A mapping written as YAML, without tags, and with few aliases.

    ``place`` says in errors where the text is from. Raises ConfigError.
    """
    try:
        data = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    except yaml.YAMLError as error:
        raise _bad_yaml(place, error) from None
    except (OmegaConfBaseException, RecursionError, ValueError) as error:
        raise ConfigError(str(error).splitlines()[0], path=place) from None
    except OSError:
        data = None  # OmegaConf says so of a text that is one bare number
    if not isinstance(data, dict) or _is_bare_text(data, text):
        raise ConfigError("the file holds no mapping of keys to values", path=place)
    return data


def _is_bare_text(data: dict[Any, Any], text: str) -> bool:
    """Whether the YAML is one plain text, which OmegaConf takes for a key without a value."""
    return list(data.values()) == [None] and isinstance(yaml.safe_load(text), str)


def _bad_yaml(place: str, error: yaml.YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    place = place if mark is None else f"{place}:{mark.line + 1}"
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    return ConfigError(f"bad YAML: {problem}", path=place, hint=context)


def _waits(data: Any) -> bool:
    """Whether anything in it is an interpolation, an escaped one, or marked as missing."""
    match data:
        case str():
            return "${" in data or data == "???"
        case dict():
            return any(_waits(key) or _waits(each) for key, each in data.items())
        case list() | tuple():
            return any(map(_waits, data))
    return False


def _refuse_calls(data: Any, place: str) -> None:
    """OmegaConf's resolvers read the environment of whoever runs a config, and would store it."""
    match data:
        case str() if _calls(data):
            raise ConfigError(
                f"{data!r} calls a function",
                path=place or None,
                hint="${path} stands for the value at another path; nothing else is replaced",
            )
        case dict():
            for key, each in data.items():
                _refuse_calls(key, place)
                _refuse_calls(each, f"{place}.{key}" if place else str(key))
        case list() | tuple():
            for index, each in enumerate(data):
                _refuse_calls(each, f"{place}[{index}]")


def _calls(text: str) -> bool:
    """Whether a colon stands within ``${...}``, be it within another one."""
    depth = 0
    for mark in re.findall(r"\$\{|[:}]", text):
        if mark == ":" and depth:
            return True
        depth = depth + 1 if mark == "${" else max(0, depth - (mark == "}"))
    return False


def _similar(path: Path) -> str | None:
    folder = path.parent
    names = sorted(each.name for each in folder.glob("*.y*ml")) if folder.is_dir() else []
    return suggestion(path.name, names) if names else None


def _interpolated(data: Any) -> Any:
    if not _waits(data):
        return data
    _refuse_calls(data, "")
    try:
        container = OmegaConf.create(data)
        return OmegaConf.to_container(container, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        place = getattr(error, "full_key", None)
        raise ConfigError(str(error).splitlines()[0], path=place or None) from None
