"""Jepsen's histories: EDN operations, and the plain lines of its log.

Both tell an operation in two events of one process: its invocation, then ``ok``, ``fail`` or
``info``. The order in the file is the order in time, so the line of an event is its time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NamedTuple

from orchestrator.errors import DataError
from orchestrator.store._edn import EdnError, Keyword, read_values
from orchestrator.store._raw_history import ABSENT, RawHistory

_LOG_LINE: Final = re.compile(
    r"(?:^|\s)(?P<process>\S+)\s+:(?P<type>invoke|ok|fail|info)\s+:(?P<f>[\w-]+)(?:\s+(?P<value>.*))?$"
)
_LOST: Final = "info"
_STATUSES: Final = {"ok": "ok", "fail": "fail", "info": "unknown"}
_MICRO: Final = {"r": "read", "w": "write"}


class _Event(NamedTuple):
    line: int
    process: Any
    type: str
    f: str
    value: Any
    key: Any


def read_edn(path: str, file: BinaryIO, model: str) -> RawHistory:
    """One map an event, or one vector of such maps."""
    return _paired(path, _edn_events(path, _text(path, file)), model)


def read_log(path: str, file: BinaryIO, model: str) -> RawHistory:
    """Lines that end in ``process :type :f value``, or are EDN maps; others are passed over."""
    return _paired(path, _log_events(path, _text(path, file)), model)


def _text(path: str, file: BinaryIO) -> str:
    data = file.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError("not UTF-8 text", path=f"{path}:{line}") from None


def _values(path: str, text: str, first: int) -> Iterator[tuple[int, Any]]:
    try:
        yield from read_values(text, first)
    except EdnError as error:
        raise DataError(error.reason, path=f"{path}:{error.line}") from None


def _edn_events(path: str, text: str) -> Iterator[_Event]:
    for line, value in _values(path, text, 1):
        listed = value if isinstance(value, list | tuple) else [(line, value)]
        for at, one in listed:
            yield _event(path, at, one)


def _event(path: str, line: int, value: Any) -> _Event:
    place = f"{path}:{line}"
    if not isinstance(value, dict):
        raise DataError("expected a map {:process .. :type .. :f ..}", path=place)
    for name in ("process", "type", "f"):
        if name not in value:
            raise DataError(f"the field :{name} is missing", path=place)
    kind = str(value["type"])
    if kind != "invoke" and kind not in _STATUSES:
        raise DataError(f"unknown :type {kind!r}", path=place, hint=":invoke, :ok, :fail or :info")
    return _Event(
        line,
        value["process"],
        kind,
        str(value["f"]),
        value.get("value"),
        plain(value.get("key")) or "",
    )


def _log_events(path: str, text: str) -> Iterator[_Event]:
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        is_cut_off = number == len(lines) and not text.endswith("\n")
        stripped = line.strip()
        if stripped.startswith(("{", "#")):
            for _, value in _values(path, stripped, number):
                yield _event(path, number, value)
            continue
        found = _LOG_LINE.search(line)
        if found is None:
            if is_cut_off or re.search(r"\s:(invoke|ok|fail|info)\b", line):
                raise DataError("the line is cut off", path=f"{path}:{number}")
            continue
        process = found["process"]
        if not process.lstrip("-").isdigit():
            continue  # the nemesis
        if is_cut_off and found["value"] is None:
            raise DataError("the line is cut off", path=f"{path}:{number}")
        values = [value for _, value in _values(path, found["value"] or "nil", number)]
        yield _Event(number, int(process), found["type"], found["f"], values[0], "")


def _paired(path: str, events: Iterator[_Event], model: str) -> RawHistory:
    raw = RawHistory(path)
    lines: list[int] = []
    started: dict[int, tuple[int, _Event]] = {}
    for time, event in enumerate(events):
        process = event.process
        if not isinstance(process, int) or isinstance(process, bool):
            if isinstance(process, Keyword):
                continue  # the nemesis is no client
            raise DataError(f"process {process!r} is no number", path=f"{path}:{event.line}")
        if event.type == "invoke":
            if process in started:
                other = started[process][1].line
                said = f"process {process} invokes again; its operation of line {other} is open"
                raise DataError(said, path=f"{path}:{event.line}")
            started[process] = len(raw.op), event
            lines.append(event.line)
            _invoke(raw, event, time)
            continue
        if process not in started:
            said = f"process {process} has :{event.type} without an open :invoke"
            raise DataError(said, path=f"{path}:{event.line}")
        row, invocation = started.pop(process)
        if invocation.f != event.f:
            said = f"process {process} invoked :{invocation.f} in line {invocation.line}"
            raise DataError(f"{said}, not :{event.f}", path=f"{path}:{event.line}")
        _complete(raw, row, event, time)
    raw.line = lines
    return raw


def _invoke(raw: RawHistory, event: _Event, time: int) -> None:
    raw.op.append(event.f)
    raw.key.append(event.key)
    raw.session.append(event.process)
    raw.invoked_ns.append(time)
    raw.returned_ns.append(None)
    raw.status.append("unknown")
    value, expected = event.value, ABSENT
    if event.f == "cas":
        if not (isinstance(value, list) and len(value) == 2):
            place = f"{raw.path}:{event.line}"
            raise DataError("the value of cas must be [expected new]", path=place)
        expected, value = (plain(one) for _, one in value)
    raw.expected.append(expected)
    raw.value.append(_of(raw, event, value))


def _complete(raw: RawHistory, row: int, event: _Event, time: int) -> None:
    raw.status[row] = _STATUSES[event.type]
    if event.type != _LOST:
        raw.returned_ns[row] = time
    # What a read, dequeue or transaction found is told when it is over.
    if event.type == "ok" and event.f in {"read", "get", "dequeue", "txn", "scan"}:
        raw.value[row] = _of(raw, event, event.value)


def _of(raw: RawHistory, event: _Event, value: Any) -> Any:
    if event.f != "txn":
        return plain(value)
    made = []
    for micro in plain(value) or ():
        if not (isinstance(micro, tuple) and len(micro) == 3):
            place = f"{raw.path}:{event.line}"
            raise DataError("a txn is a vector of [op key value]", path=place)
        made.append((_MICRO.get(str(micro[0]), str(micro[0])), micro[1], micro[2]))
    return tuple(made)


def plain(value: Any) -> Any:
    """Without the lines: lists and sets as tuples, keywords as their names."""
    if isinstance(value, list):
        return tuple(plain(one) for _, one in value)
    return str(value) if isinstance(value, Keyword) else value
