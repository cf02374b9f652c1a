"""Values as texts that any Parquet file and any JSON reader can hold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy

from orchestrator.errors import ConfigError

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def clean(text: str) -> str:
    """``text`` as it can be stored: what UTF-8 has no bytes for is escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain(value: Any) -> Any:
    """``value`` in JSON's own types; JSON has no number that is not finite, so those are null."""
    if isinstance(value, (numpy.generic, numpy.ndarray)):
        value = value.tolist()
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def json_text(value: Any) -> str:
    """JSON of dicts, lists, numbers and text, numpy's included."""
    return json.dumps(_plain(value), ensure_ascii=False)


def plain_name(name: str, what: str) -> str:
    """``name`` as part of a path. Raises ConfigError where it cannot be one."""
    if not _PLAIN_NAME.fullmatch(name):
        shown = name if len(name) <= 80 else name[:80] + "..."
        raise ConfigError(
            f"{shown!r} cannot name results",
            path=what,
            hint="1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit",
        )
    return name
