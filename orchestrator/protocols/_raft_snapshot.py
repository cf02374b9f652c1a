"""Raft's snapshots: on disk in place of the log's beginning, and on the wire to who lacks it.

Section 7 of the paper that :mod:`orchestrator.protocols.raft` names, with its figure 13.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from orchestrator.core.machine import ACKNOWLEDGE, REPLICATE, Op
from orchestrator.core.state import Snapshot


class Contents(msgspec.Struct, array_like=True, gc=False):
    """What the applied entries amount to: the members, and the state with its sessions."""

    members: tuple[int, ...]
    state: Snapshot


class Saved(msgspec.Struct, array_like=True, tag=7, gc=False):
    """Durable record in place of all before it: ballot, snapshot, and the entries behind it.

    ``tail[i]`` is entry ``index`` + 1 + i and of ``tail_terms[i]``.
    """

    term: int
    vote: int
    index: int
    index_term: int
    contents: Contents
    tail_terms: list[int]
    tail: list[Op]


class InstallSnapshot(msgspec.Struct, array_like=True, tag=9, gc=False):
    """A part of the encoded contents at ``index``; they are whole once the ``last`` has come."""

    link: ClassVar[str] = REPLICATE
    term: int
    index: int
    index_term: int
    round: int
    offset: int
    data: bytes
    last: bool


class Installing(msgspec.Struct, array_like=True, tag=10, gc=False):
    """Of the snapshot at ``index`` the sender has the first ``offset`` bytes."""

    link: ClassVar[str] = ACKNOWLEDGE
    term: int
    index: int
    offset: int
    round: int


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Contents).decode
