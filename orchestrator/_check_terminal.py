"""What people see of ``archbench check``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator import _terminal

if TYPE_CHECKING:
    from rich.console import Console

_COLOURS = {"valid": "green", "invalid": "red", "unknown": "yellow"}


def parsed(text: str) -> Any:
    """A value of the command line: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def show(out: Console, found: Mapping[str, Any]) -> None:
    """The verdict, its reason, and the operations that show it."""
    from rich.text import Text

    keys = "1 key" if found["keys"] == 1 else f"{found['keys']:,} keys"
    size = f"{found['operations']:,} operations on {keys}"
    line = Text(found["verdict"], style=f"bold {_COLOURS[found['verdict']]}")
    line.append(
        f"  {found['level']} {found['model']}, {size}, {found['seconds']:.2f} s", style="default"
    )
    out.print(line, soft_wrap=True)
    out.print(found["explanation"], markup=False, soft_wrap=True)
    if found["witness"]:
        names = ("session", "sequence", "op", "key", "value", "invoked_ns", "returned_ns", "status")
        rows = [[_cell(operation, name) for name in names] for operation in found["witness"]]
        out.print(_terminal.table(names, rows))


def _cell(operation: Mapping[str, Any], name: str) -> str:
    value = operation.get(name)
    if name == "value" and "expected" in operation:
        return json.dumps([operation["expected"], value])
    if name == "value" and "ops" in operation:
        return " ".join(json.dumps(list(one.values())) for one in operation["ops"])
    return value if isinstance(value, str) and name != "value" else json.dumps(value)
