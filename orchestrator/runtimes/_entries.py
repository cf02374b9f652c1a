"""How many operations, or other items, a message between nodes brings."""

from __future__ import annotations

from functools import cache
from operator import attrgetter
from typing import Any, get_origin

import msgspec


def entries_of(message: Any) -> int:
    """The items of all its lists."""
    kind: Any = type(message)
    return sum(len(get(message)) for get in _lists_of(kind))


@cache
def _lists_of(kind: Any) -> tuple[attrgetter[Any], ...]:
    """What gets the lists of such a message."""
    if not issubclass(kind, msgspec.Struct):
        return ()
    fields = msgspec.structs.fields(kind)
    return tuple(attrgetter(each.name) for each in fields if get_origin(each.type) is list)
