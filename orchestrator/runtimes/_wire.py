"""The client wire: RESP, with one private command for our own clients.

An own client sends ``AB header key [value]`` and gets ``[header, value]`` back, in any order:
the headers carry session and sequence, so nothing waits behind a slower operation of the same
connection. Plain Redis clients send GET and SET and get their answers in order.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from orchestrator.core.machine import OUTCOME_NAMES, SCAN, Op

COMMAND: Final = b"AB"
_NO_VALUE: Final = type(None)
REDIRECTED: Final = len(OUTCOME_NAMES)
"""Outcome code of a reply whose version is the node to ask instead (-1: not known)."""

_REQUEST: Final = struct.Struct("<qqqIIB")
_RESPONSE: Final = struct.Struct("<qqqB")
_REQUEST_SIZE: Final = _REQUEST.size
_RESPONSE_SIZE: Final = _RESPONSE.size

unpack_response = _RESPONSE.unpack
_pack_request = _REQUEST.pack
_unpack_request = _REQUEST.unpack
_pack_response = _RESPONSE.pack
_encode = msgspec.msgpack.Encoder().encode


def encode_request(op: Op) -> bytes:
    """The command of an own client."""
    header = _pack_request(op.session, op.sequence, op.context, op.size, op.count, op.kind)
    key, value = op.key, op.value
    if value is None:
        return b"*3\r\n$2\r\nAB\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
            _REQUEST_SIZE,
            header,
            len(key),
            key,
        )
    return b"*4\r\n$2\r\nAB\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        _REQUEST_SIZE,
        header,
        len(key),
        key,
        len(value),
        value,
    )


def decode_request(command: list[bytes]) -> Op:
    """The operation of a parsed private command; ValueError where it is malformed."""
    if not 3 <= len(command) <= 4 or len(command[1]) != _REQUEST_SIZE:
        raise ValueError("malformed AB command")
    session, sequence, context, size, count, kind = _unpack_request(command[1])
    value = command[3] if len(command) == 4 else None
    # A parser lets anything stand here, and what is no string would spoil the replicated log.
    if kind > SCAN or type(command[2]) is not bytes or type(value) not in (bytes, _NO_VALUE):
        raise ValueError("malformed AB command")
    return Op(session, sequence, kind, command[2], value, size, context, count)


def encode_response(session: int, sequence: int, outcome: int, version: int, value: Any) -> bytes:
    """The answer to an own client; the pairs of a scan travel as one packed value."""
    header = _pack_response(session, sequence, version, outcome)
    if value is None:
        return b"*2\r\n$%d\r\n%b\r\n$-1\r\n" % (_RESPONSE_SIZE, header)
    if type(value) is list:
        value = _encode(value)
    return b"*2\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (_RESPONSE_SIZE, header, len(value), value)


def encode_bulk(value: bytes | None) -> bytes:
    """A RESP bulk string, or null."""
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)
