"""Commands of plain Redis clients that need no machine: PING, HELLO, COMMAND, CONFIG, ...

They answer with plain values, encoded for the protocol version that the connection speaks:
RESP2, or RESP3 after HELLO 3 (which has maps and its own null).
"""

from __future__ import annotations

import fnmatch
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

RESP2, RESP3 = 2, 3
VERSION: Final = "7.0.0"
"""The version of Redis whose answers are imitated."""

_SETTINGS: Final = {b"save": b"", b"appendonly": b"no", b"maxmemory": b"0"}
_SHOWN_BYTES: Final = 128
PATTERNS_MAX: Final = 16
PATTERN_MAX_BYTES: Final = 64
"""Of CONFIG GET: each pattern is compiled."""
_VERSION_DIGITS: Final = 4
_BEFORE_AUTH: Final = "no_auth"
"""Flag of commands that may come before a password, as Redis has it."""


class Simple(str):
    """A status without line breaks: ``+OK``."""


class Failure(str):
    """An error: its kind, then a text."""


OK: Final = Simple("OK")
Value = Simple | Failure | bytes | int | None | Sequence[Any] | Mapping[Any, Any]


class Caller(Protocol):
    """What a command may ask of its connection."""

    protocol: int
    name: bytes

    @property
    @abstractmethod
    def number(self) -> int:
        """Which connection of the node it is."""

    @property
    @abstractmethod
    def refusal(self) -> Failure | None:
        """Why it may give no commands yet; None where it may."""

    @abstractmethod
    def authenticate(self, user: bytes | None, password: bytes) -> Value:
        """A password was named; OK, or an error."""

    @abstractmethod
    def info(self) -> bytes:
        """The text of INFO."""

    @abstractmethod
    def end(self) -> None:
        """Close once everything asked so far is answered."""


def encode(value: Value, protocol: int) -> bytes:
    """A value as RESP; RESP2 shows a map as a flat array."""
    match value:
        case None:
            return b"_\r\n" if protocol == RESP3 else b"$-1\r\n"
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(value), value)
        case Failure() | Simple():
            line = value.encode("utf-8", "backslashreplace").translate(_LINE_BREAKS)
            return (b"-" if isinstance(value, Failure) else b"+") + line + b"\r\n"
        case int():
            return b":%d\r\n" % value
        case Mapping():
            parts = [encode(part, protocol) for pair in value.items() for part in pair]
            head = b"%%%d\r\n" % len(value) if protocol == RESP3 else b"*%d\r\n" % len(parts)
            return head + b"".join(parts)
        case _:
            return b"*%d\r\n" % len(value) + b"".join(encode(part, protocol) for part in value)


_LINE_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")


@dataclass(frozen=True)
class Command:
    """``arity`` counts the name: exactly that many words, or at least -arity."""

    arity: int
    flag: str
    answer: Callable[[Caller, list[bytes]], Value] | None = None

    def takes(self, count: int) -> bool:
        """Whether it can have that many words."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity


def answer(caller: Caller, words: list[bytes]) -> Value:
    """The answer to any command that is not a well-formed GET or SET, or not allowed yet."""
    name = words[0].lower()
    command = COMMANDS.get(name)
    refusal = caller.refusal
    if refusal is not None and (command is None or command.flag != _BEFORE_AUTH):
        return refusal
    if command is None:
        shown = " ".join(f"'{_text(word)}'" for word in words[1:4])
        return Failure(
            f"ERR unknown command '{_text(words[0])}', with args beginning with: {shown}"
        )
    if command.answer is None and len(words) > command.arity:
        return Failure(f"ERR syntax error: {_text(name)} takes no options here")
    if command.answer is None or not command.takes(len(words)):
        return _wrong_number(_text(name))
    return command.answer(caller, words)


def _text(word: bytes) -> str:
    return word[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")


def _wrong_number(name: str) -> Failure:
    return Failure(f"ERR wrong number of arguments for '{name}' command")


def _unknown_subcommand(words: list[bytes]) -> Failure:
    return Failure(f"ERR unknown subcommand '{_text(words[1])}' of {_text(words[0].upper())}")


# --- the commands -----------------------------------------------------------------------


def _ping(caller: Caller, words: list[bytes]) -> Value:
    if len(words) > 2:
        return _wrong_number("ping")
    return words[1] if len(words) == 2 else Simple("PONG")


def _auth(caller: Caller, words: list[bytes]) -> Value:
    if len(words) > 3:
        return Failure("ERR syntax error")
    return caller.authenticate(words[1] if len(words) == 3 else None, words[-1])


def _echo(caller: Caller, words: list[bytes]) -> Value:
    return words[1]


def _quit(caller: Caller, words: list[bytes]) -> Value:
    caller.end()
    return OK


def _select(caller: Caller, words: list[bytes]) -> Value:
    return OK if words[1] == b"0" else Failure("ERR DB index is out of range")


_HELLO_REFUSED: Final = Failure(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto>"
    " AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol"
    " version at the same time"
)


def _hello(caller: Caller, words: list[bytes]) -> Value:
    """``HELLO [2|3 [AUTH user password] [SETNAME name]]``."""
    protocol, name = caller.protocol, caller.name
    if len(words) >= 2:
        # Longer ones are no numbers to Python, which bounds the digits that it converts.
        if not words[1].isdigit() or len(words[1]) > _VERSION_DIGITS:
            return Failure("ERR Protocol version is not an integer or out of range")
        protocol = int(words[1])
        if protocol not in (RESP2, RESP3):
            return Failure("NOPROTO unsupported protocol version")
    rest = words[2:]
    while rest:
        option = rest[0].upper()
        if option == b"AUTH" and len(rest) >= 3:
            said = caller.authenticate(rest[1], rest[2])
            if isinstance(said, Failure):
                return said
            rest = rest[3:]
        elif option == b"SETNAME" and len(rest) >= 2:
            name, rest = rest[1], rest[2:]
        else:
            return Failure(f"ERR Syntax error in HELLO option '{_text(rest[0])}'")
    if caller.refusal is not None:
        return _HELLO_REFUSED
    caller.protocol, caller.name = protocol, name
    return {
        b"server": b"archbench",
        b"version": VERSION.encode(),
        b"proto": protocol,
        b"id": caller.number,
        b"mode": b"standalone",
        b"role": b"master",
        b"modules": [],
    }


def _client(caller: Caller, words: list[bytes]) -> Value:
    """What client libraries say of themselves when they connect."""
    match words[1].upper(), len(words):
        case b"SETNAME", 3:
            caller.name = words[2]
            return OK
        case b"GETNAME", 2:
            return caller.name or None
        case b"ID", 2:
            return caller.number
        case b"SETINFO", 4:
            return OK
        case ((b"SETNAME" | b"GETNAME" | b"ID" | b"SETINFO"), _):
            return _wrong_number(f"client|{_text(words[1].lower())}")
    return _unknown_subcommand(words)


def _config(caller: Caller, words: list[bytes]) -> Value:
    if words[1].upper() != b"GET":
        return _unknown_subcommand(words)
    if len(words) < 3:
        return _wrong_number("config|get")
    patterns = words[2:]
    if len(patterns) > PATTERNS_MAX or max(map(len, patterns)) > PATTERN_MAX_BYTES:
        most = f"{PATTERNS_MAX} patterns of {PATTERN_MAX_BYTES} bytes"
        return Failure(f"ERR too many or too long patterns, at most {most}")
    # The module for patterns keeps 32,768 of them, that for expressions 512.
    texts = [fnmatch.translate(pattern.lower().decode("latin-1")) for pattern in patterns]
    matches = [re.compile(text).match for text in texts]
    return {
        name: value
        for name, value in _SETTINGS.items()
        if any(match(name.decode()) for match in matches)
    }


def _command(caller: Caller, words: list[bytes]) -> Value:
    match [words[1].upper(), *words[2:]] if len(words) > 1 else [b"INFO", *COMMANDS]:
        case [b"COUNT"]:
            return len(COMMANDS)
        case [b"LIST"]:
            return list(COMMANDS)
        case [b"DOCS", *_]:
            return {}
        case [b"INFO", *names]:
            return [_row(name.lower()) for name in names or COMMANDS]
    return _unknown_subcommand(words)


def _row(name: bytes) -> Value:
    """Name, arity, flags, first key, last key, step between keys, and four empty lists:
    categories of access, tips, key specifications, subcommands.
    """
    command = COMMANDS.get(name)
    if command is None:
        return None
    keys = (1, 1, 1) if command.answer is None else (0, 0, 0)
    return [name, command.arity, [Simple(command.flag)], *keys, [], [], [], []]


def node_info(role: str, protocol: str, replicas: int, node: int) -> bytes:
    """The text of INFO."""
    lines = [
        "# Server",
        f"redis_version:{VERSION}",
        "server_name:archbench",
        "# Replication",
        f"role:{role}",
        f"protocol:{protocol}",
        f"replicas:{replicas}",
        f"node:{node}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n"


def _info(caller: Caller, words: list[bytes]) -> Value:
    return caller.info()


COMMANDS: Final = {
    # These two are for the machine.
    b"get": Command(2, "readonly"),
    b"set": Command(3, "write"),
    b"auth": Command(-2, _BEFORE_AUTH, _auth),
    b"client": Command(-2, "noscript", _client),
    b"command": Command(-1, "loading", _command),
    b"config": Command(-2, "admin", _config),
    b"echo": Command(2, "fast", _echo),
    b"hello": Command(-1, _BEFORE_AUTH, _hello),
    b"info": Command(-1, "loading", _info),
    b"ping": Command(-1, "fast", _ping),
    b"quit": Command(-1, _BEFORE_AUTH, _quit),
    b"select": Command(2, "fast", _select),
}
