"""The client wire: RESP, with private commands for our own clients.

An own client sends ``AB header key [value [context]]`` and gets ``[header, value, context?]``
back, in any order: the headers carry session and sequence, so nothing waits behind a slower
operation of the same connection. Where its balancer wants the nodes' word of their load, an answer
is ``[header, value, context, in flight, latency in us]``, and ``ABLOAD session`` is answered with
the last two alone. ``ABTIED tie header key context`` asks for one of two copies of a read. Of a
sampled operation (``_spans``) an attempt is ``ABSPAN number tie header key context [value]``, where
an empty tie is none, and its answer is ``[header, value, context, stay]``, or with the node's word
``[header, value, context, stay, in flight, latency in us]``: durations at the node, and no times,
since clocks differ. Between a client and a node that read one clock, what is on its way waits where
it arrives: ``ABSTAMP`` before commands, and an integer before answers, say until when. Before all
that, client and node prove to each other by ``ABHELLO`` and ``ABPROOF`` that they are of the same
run (``_handshake``). Plain Redis clients send GET and SET and get their answers in order.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from orchestrator.core.compare_and_set import decode_exchange
from orchestrator.core.load import Word
from orchestrator.core.machine import (
    CAS,
    KIND_NAMES,
    READING,
    UNMATCHED,
    Op,
    Redirect,
    Reply,
)
from orchestrator.core.spans import Stay
from orchestrator.core.units import NS_PER_US
from orchestrator.core.waiting import Refusal, Tie

COMMAND: Final = b"AB"
HELLO: Final = b"ABHELLO"
"""With the client's nonce; answered with the node's nonce and proof."""
PROOF: Final = b"ABPROOF"
"""With the client's proof; the private command is understood from then on."""
PROBE: Final = b"ABPROBE"
"""Answered at once: how long the links between client and node take."""
LOAD: Final = b"ABLOAD"
"""With a session of the client; answered at once with the node's word of its load."""
TIED: Final = b"ABTIED"
"""One of two copies of a read, with the node that gets the other and the number of the pair."""
SPAN: Final = b"ABSPAN"
"""An attempt of a sampled operation, of which the answer tells where its time at the node went."""
STAMP: Final = b"ABSTAMP"
"""With the time by the host's clock at which what follows arrives."""
PRIVATE: Final = (COMMAND, HELLO, PROOF, PROBE, LOAD, TIED, SPAN, STAMP)
_NO_VALUE: Final = type(None)
REDIRECTED: Final = UNMATCHED + 1
"""Outcome code of a reply whose version is the node to ask instead (-1: not known)."""
REFUSED: Final = REDIRECTED + 1
"""Outcome code of a reply whose version is how long to wait before asking again, in ns."""

_KINDS: Final = len(KIND_NAMES)
_REQUEST: Final = struct.Struct("<qqqIIBB")
_RESPONSE: Final = struct.Struct("<qqqB")
_SESSION: Final = struct.Struct("<q")
_TIME: Final = struct.Struct("<q")
_TIE: Final = struct.Struct("<iI")
_NUMBER: Final = struct.Struct("<I")
_STAY: Final = struct.Struct("<Iqqqq")
_REQUEST_SIZE: Final = _REQUEST.size
_RESPONSE_SIZE: Final = _RESPONSE.size

unpack_response = _RESPONSE.unpack
_pack_request = _REQUEST.pack
_unpack_request = _REQUEST.unpack
_pack_response = _RESPONSE.pack
_encode = msgspec.msgpack.Encoder().encode


def encode_request(op: Op) -> bytes:
    """The command of an own client."""
    header = _pack_request(op.session, op.sequence, op.seen, op.size, op.count, op.kind, op.level)
    key, value = op.key, op.value
    if op.context:
        return b"*5\r\n$2\r\nAB\r\n" + b"".join(
            encode_bulk(part) for part in (header, key, value, op.context)
        )
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
    words = len(command)
    if not 3 <= words <= 5 or len(command[1]) != _REQUEST_SIZE:
        raise ValueError("malformed AB command")
    session, sequence, seen, size, count, kind, level = _unpack_request(command[1])
    value = command[3] if words > 3 else None
    context = command[4] if words == 5 else b""
    # A parser lets anything stand here, and what is no string would spoil the replicated log.
    if (
        kind >= _KINDS
        or type(command[2]) is not bytes
        or type(value) not in (bytes, _NO_VALUE)
        or type(context) is not bytes
    ):
        raise ValueError("malformed AB command")
    if kind == CAS:
        decode_exchange(value)
    return Op(session, sequence, kind, command[2], value, size, seen, count, level, context)


def encode_tied(op: Op, tie: Tie) -> bytes:
    """The command of an own client for one of two copies of a read."""
    header = _pack_request(op.session, op.sequence, op.seen, op.size, op.count, op.kind, op.level)
    words = (TIED, _TIE.pack(*tie), header, op.key, op.context)
    return b"*%d\r\n" % len(words) + b"".join(encode_bulk(word) for word in words)


def decode_tied(command: list[bytes]) -> tuple[Op, Tie]:
    """The read of a parsed command and its tie; ValueError where it is malformed."""
    if len(command) != 5 or len(command[1]) != _TIE.size:
        raise ValueError("malformed ABTIED command")
    _, tie, header, key, context = command
    op = decode_request([COMMAND, header, key])
    if op.kind not in READING:
        raise ValueError("malformed ABTIED command")
    op.context = context
    return op, Tie(*_TIE.unpack(tie))


def encode_sampled(op: Op, tie: Tie | None, number: int) -> bytes:
    """The command of an own client for an attempt of a sampled operation, by its number."""
    header = _pack_request(op.session, op.sequence, op.seen, op.size, op.count, op.kind, op.level)
    packed = b"" if tie is None else _TIE.pack(*tie)
    words = [SPAN, _NUMBER.pack(number), packed, header, op.key, op.context]
    if op.value is not None:
        words.append(op.value)
    return b"*%d\r\n" % len(words) + b"".join(encode_bulk(word) for word in words)


def decode_sampled(command: list[bytes]) -> tuple[Op, Tie | None, int]:
    """The operation of a parsed command, its tie, and the attempt's number; ValueError where it is
    malformed.
    """
    if len(command) not in (6, 7) or len(command[1]) != _NUMBER.size:
        raise ValueError("malformed ABSPAN command")
    _, number, tie, header, key, context, *value = command
    if tie and (value or len(tie) != _TIE.size):
        raise ValueError("malformed ABSPAN command")
    op = decode_request([COMMAND, header, key, *value])
    if tie and op.kind not in READING:
        raise ValueError("malformed ABSPAN command")
    op.context = context
    return op, Tie(*_TIE.unpack(tie)) if tie else None, int(_NUMBER.unpack(number)[0])


def encode_answer(
    session: int, sequence: int, effect: Reply | Redirect | Refusal, word: Word | None, stay: Stay
) -> bytes:
    """As ``encode_response``, of whatever answers an attempt of a sampled operation."""
    packed, context = None, b""
    if isinstance(effect, Reply):
        outcome, number, context = effect.outcome, effect.version, effect.context
        packed = _encode(effect.value) if type(effect.value) is list else effect.value
    elif isinstance(effect, Redirect):
        outcome, number = REDIRECTED, effect.node
    else:
        outcome, number = REFUSED, effect.wait_ns
    header = _pack_response(session, sequence, number, outcome)
    parts = (header, packed, context or None, _STAY.pack(*stay))
    body = b"".join(encode_bulk(part) for part in parts)
    return b"*4\r\n" + body if word is None else b"*6\r\n" + body + _encode_word(word)


def decode_stay(packed: Any) -> Stay | None:
    """What came with an answer; None where that is no such thing."""
    if type(packed) is not bytes or len(packed) != _STAY.size:
        return None
    return Stay(*_STAY.unpack(packed))


def encode_response(
    session: int,
    sequence: int,
    outcome: int,
    version: int,
    value: Any,
    context: bytes = b"",
    word: Word | None = None,
) -> bytes:
    """The answer to an own client; the pairs of a scan travel as one packed value.

    ``word``: what it brings along of the node's load.
    """
    header = _pack_response(session, sequence, version, outcome)
    if word is not None:
        packed = _encode(value) if type(value) is list else value
        parts = (header, packed, context or None)
        return b"*5\r\n" + b"".join(encode_bulk(part) for part in parts) + _encode_word(word)
    if context:
        packed = _encode(value) if type(value) is list else value
        return b"*3\r\n" + b"".join(encode_bulk(part) for part in (header, packed, context))
    if value is None:
        return b"*2\r\n$%d\r\n%b\r\n$-1\r\n" % (_RESPONSE_SIZE, header)
    if type(value) is list:
        value = _encode(value)
    return b"*2\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (_RESPONSE_SIZE, header, len(value), value)


def encode_stamp(at_ns: int) -> bytes:
    """When the commands after it arrive, by the host's clock."""
    return b"*2\r\n$7\r\nABSTAMP\r\n$8\r\n%b\r\n" % _TIME.pack(at_ns)


def decode_stamp(command: list[bytes]) -> int:
    """The time of a parsed stamp; ValueError where it is malformed."""
    if len(command) != 2 or len(command[1]) != _TIME.size:
        raise ValueError("malformed ABSTAMP command")
    return int(_TIME.unpack(command[1])[0])


def encode_load_request(session: int) -> bytes:
    """An own client asks for the node's word."""
    return b"*2\r\n" + encode_bulk(LOAD) + encode_bulk(_SESSION.pack(session))


def decode_load_request(command: list[bytes]) -> int:
    """A session of the client that asks; ValueError where it is malformed."""
    if len(command) != 2 or len(command[1]) != _SESSION.size:
        raise ValueError("malformed ABLOAD command")
    return int(_SESSION.unpack(command[1])[0])


def encode_load_response(word: Word) -> bytes:
    """The node's word alone."""
    return b"*2\r\n" + _encode_word(word)


def _encode_word(word: Word) -> bytes:
    in_flight, latency_ns = word
    return b":%d\r\n:%d\r\n" % (in_flight, latency_ns // NS_PER_US)


def encode_bulk(value: bytes | None) -> bytes:
    """A RESP bulk string, or null."""
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)
