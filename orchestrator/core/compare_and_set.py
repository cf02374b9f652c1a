"""What a compare-and-set carries: the value that it expects, and the one that it stores instead.

It stores where the key holds what is expected, in one step with the comparison, and is answered
OK; where the key holds anything else it changes nothing, and is answered UNMATCHED. Every node
that applies all changes in the common order compares for itself and finds the same (a state
machine's operations are deterministic: Schneider, "Implementing Fault-Tolerant Services Using the
State Machine Approach", ACM Computing Surveys 22(4), 1990, section 2).

Both values travel as the operation's one ``value``, so that no other operation is larger for it,
and whatever weighs values (portions, links, logs) weighs both.
"""

from __future__ import annotations

import msgspec


class Exchange(msgspec.Struct, array_like=True, gc=False):
    """``expected`` None: that there is nothing."""

    expected: bytes | None
    new: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Exchange).decode


def encode_exchange(expected: bytes | None, new: bytes) -> bytes:
    """The value of a compare-and-set."""
    return _encode(Exchange(expected, new))


def decode_exchange(value: bytes | None) -> Exchange:
    """What a compare-and-set carries; ValueError where that is something else."""
    try:
        return _decode(value or b"")
    except msgspec.MsgspecError as error:
        raise ValueError(f"no compare-and-set: {error}") from None
