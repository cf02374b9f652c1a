"""The contract between a replication protocol and whatever runs it.

A protocol is a pure machine: ``handle(event, now_ns) -> effects``. It owns no socket, clock,
thread or unseeded chance, so the simulator and the real runtime carry the very same object.

Rules that every runtime keeps (``orchestrator/runtimes/_node.py`` is their one home):

* **Persist barrier.** No effect of the ``handle`` call that asked for a :class:`Persist`, nor
  of any later call on that node, leaves before the record is durable, but for a
  :class:`Send` with ``overlap=True``. The machine hears :class:`Persisted` when it is.
* **Access.** A :class:`Reply` or :class:`Send` that names a token leaves only when the
  :class:`Access` of that token has been through cache and storage; nothing else waits for it.
* **Timers.** Setting a timer again moves it; a cancelled timer never fires.
* **Batches.** Lists in events carry whatever may be handled together, of operations a portion
  (:mod:`.portions`) at the most, and under modelled costs no more than ``batch_max``.

Objects in events and effects are shared, not copied: a machine never changes a message or an
operation that it was given or has sent.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import msgspec

from orchestrator.core.demand import Demands

# Kinds of operation, as small integers because they travel with every operation.
READ: Final = 0
WRITE: Final = 1
SCAN: Final = 2
CAS: Final = 3
APPEND: Final = 4
INCREMENT: Final = 5
ADD: Final = 6
TRANSACTION: Final = 7
ENQUEUE: Final = 8
DEQUEUE: Final = 9
KIND_NAMES: Final = (
    "read", "write", "scan", "cas", "append", "incr", "add", "txn", "enqueue", "dequeue",
)  # fmt: skip
READING: Final = frozenset({READ, SCAN})
"""Kinds that change nothing."""

# Outcomes. FAIL: it definitely did not happen. UNKNOWN: it may have happened.
OK: Final = 0
FAIL: Final = 1
UNKNOWN: Final = 2
OUTCOME_NAMES: Final = ("ok", "fail", "unknown")
UNMATCHED: Final = 3
"""Answer to a CAS: the key held another value, so nothing changed; a history's FAIL."""

# Kinds of message on a link, for delays that differ by kind.
REQUEST: Final = "request"
RESPONSE: Final = "response"
REPLICATE: Final = "replicate"
ACKNOWLEDGE: Final = "acknowledge"
READ_COPY: Final = "read"
READ_REPLY: Final = "read_reply"
CANCEL: Final = "cancel"
LINK_KINDS: Final = (REQUEST, RESPONSE, REPLICATE, ACKNOWLEDGE, READ_COPY, READ_REPLY, CANCEL)


class Op(msgspec.Struct, array_like=True, gc=False):
    """One operation; (session, sequence) is its identity and survives retries.

    ``value`` is what a write stores. ``size`` is the weight of the entry in bytes (key and
    value), which may exceed what is carried. ``seen`` is the newest version that the session
    has seen, ``context`` what the protocol gave the session with its last answer. ``count`` is
    the number of records that a scan asks for. ``level``: code of the consistency level that
    this operation asks for (``levels.CODES``; 0: none of its own).
    """

    session: int
    sequence: int
    kind: int
    key: bytes
    value: bytes | None = None
    size: int = 0
    seen: int = 0
    count: int = 1
    level: int = 0
    context: bytes = b""


class Started(msgspec.Struct, gc=False):
    """The node is up. ``records`` are those persisted before a crash, in order."""

    records: list[Any]


class Requested(msgspec.Struct, gc=False):
    """Operations of clients; ``handles[i]`` belongs to ``ops[i]`` and is opaque."""

    handles: list[Any]
    ops: list[Op]


class Received(msgspec.Struct, gc=False):
    """A message of the machine on node ``source``."""

    source: int
    message: Any


class TimerFired(msgspec.Struct, gc=False):
    timer: str


class Persisted(msgspec.Struct, gc=False):
    """Everything up to the Persist with this token is durable."""

    token: int


class Admin(msgspec.Struct, gc=False):
    """An operator's command about ``node``; every node hears it, whoever can acts on it."""

    command: str
    node: int


Event = Started | Requested | Received | TimerFired | Persisted | Admin


class Send(msgspec.Struct, gc=False):
    """``overlap``: may leave before the node's own record is durable (a leader's appends).
    ``after``: token of the Access that must be done first.
    """

    target: int
    message: Any
    overlap: bool = False
    after: int = 0


class Reply(msgspec.Struct, gc=False):
    """Answer to a client. ``after``: token of the Access that must be done first.

    ``value`` is what a read found (None: nothing there), for a scan the list of (key, value).
    ``version`` orders the state the answer is from; the session carries it on, and
    ``context``, opaque to all but the protocol, with its next operation (empty: as before).
    """

    handle: Any
    outcome: int
    value: Any = None
    version: int = 0
    after: int = 0
    context: bytes = b""


class Redirect(msgspec.Struct, gc=False):
    """Another node serves this; ``node`` is -1 while nobody is known to."""

    handle: Any
    op: Op
    node: int


class SetTimer(msgspec.Struct, gc=False):
    timer: str
    delay_ns: int


class CancelTimer(msgspec.Struct, gc=False):
    timer: str


class Persist(msgspec.Struct, gc=False):
    """Make ``record`` durable; tokens rise.

    ``replaces``: it stands for all records of its ``group`` before it (a snapshot), which may be
    forgotten once it is durable. A node that hosts several machines has a group for each.
    """

    record: Any
    token: int
    replaces: bool = False
    group: int = 0


class Access(msgspec.Struct, gc=False):
    """The entry goes through cache and storage: a read fetches it, a write leaves it cached.

    ``token`` 0: nothing waits for it.
    """

    token: int
    key: bytes
    size: int
    kind: int


class Became(msgspec.Struct, gc=False):
    """The node's role (``leader``, ...) changed, or that in one of its groups: an event."""

    role: str
    group: int | None = None


class Mark(msgspec.Struct, gc=False):
    """Something worth counting: a copy was repaired, ... With a ``detail`` an event, too."""

    what: str
    detail: str = ""


Effect = Send | Reply | Redirect | SetTimer | CancelTimer | Persist | Access | Became | Mark


# --- machines ---------------------------------------------------------------------------


class Preload(Protocol):
    """The data that is there before the first operation, computed instead of copied."""

    def get(self, key: bytes) -> bytes | None:
        """The preloaded value of a key, None where there is none."""

    def keys_from(self, start: bytes, count: int) -> Sequence[bytes]:
        """Up to ``count`` preloaded keys at or after ``start`` in key order."""


@dataclass(slots=True)
class Entry:
    """A written value and the version of its last write; replaced in place by the state."""

    value: bytes
    version: int


@dataclass(frozen=True)
class MachineContext:
    """What a machine is born with.

    ``nodes`` holds the ids of all nodes, 0 to n-1, and ``replicas`` how many of them hold a copy of
    each key (0: all); the protocol's authority, where it has one, is node n. ``batch_max`` bounds
    the operations in one message (0: the runtime does not), ``chance`` is this node's own stream,
    and ``holdings`` are those of a group that data moves to and from.
    """

    node: int
    nodes: tuple[int, ...]
    preload: Preload
    chance: random.Random
    batch_max: int = 0
    accesses: bool = True
    replicas: int = 0
    holdings: Any = None

    @property
    def peers(self) -> tuple[int, ...]:
        """All other nodes."""
        return tuple(node for node in self.nodes if node != self.node)


@dataclass(frozen=True)
class ClusterView:
    """What a client knows: the nodes, and who served its last write and its last strong read
    where not every node does (node 0 at first).
    """

    nodes: tuple[int, ...]
    writer: int = 0
    reader: int = 0


@dataclass(frozen=True)
class ClaimContext:
    """What a protocol's claims depend on: ``nodes`` (0: as many as replicas), nodes that crash (so
    even a sticky session moves) and come back, and how much faster one clock may run than another.
    """

    replicas: int
    sticky: bool
    durability: str
    nodes: int = 0
    restarts: bool = False
    crashes: bool = False
    clock_error: float = 0.0


class Machine(Protocol):
    """A replication protocol on one node; see the module's rules. Protocols inherit from it."""

    Message: ClassVar[Any]
    """Union of the message classes, from which the codec is built; None without messages."""

    Record: ClassVar[Any]
    """Type of what it persists, for reading it back."""

    kinds: ClassVar[frozenset[int]] = frozenset({READ, WRITE, SCAN})
    """Kinds of operation that it can serve."""

    commands: ClassVar[frozenset[str]] = frozenset()
    """What an operator may command."""

    ordered: ClassVar[bool] = False
    """Whether all nodes apply all changes, layers' steps too, in one order to their ``_state``."""

    led: ClassVar[bool] = True
    """Whether one node leads, as its role says, unless a new one is being looked for; otherwise
    all nodes are alike.
    """

    role: str

    @property
    def holds_copy(self) -> bool:
        """Whether its copy is to be as the others' in the end: a spare node holds none."""
        return True

    @property
    def unfinished(self) -> int:
        """How much is left that is to be over soon after all faults are: locks, say."""
        return 0

    def __init__(self, context: MachineContext, params: Any) -> None: ...

    @abstractmethod
    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        """The only mutator."""

    @abstractmethod
    def check(self) -> None:
        """Assert the invariants; called after every event in tests, never while measuring."""

    @abstractmethod
    def contents(self) -> Mapping[bytes, Entry]:
        """The written state by key, to compare replicas at the end."""

    def copies(self) -> Mapping[int, Mapping[bytes, Entry]]:
        """The contents that are to be as the others' in the end, by the group that they are of."""
        return {0: self.contents()} if self.holds_copy else {}

    @property
    def reign(self) -> int | None:
        """Number of the term, epoch or ballot in which it is the only one to lead; None where it
        does not lead, or where others may lead as well.
        """
        return None

    @property
    def decided(self) -> int:
        """How far an order that all nodes agree on is final, as this one knows (0 without one); the
        fuzzer compares these orders, and reigns, after every event.
        """
        return 0

    def held_after(self, position: int) -> tuple[int, Sequence[Op | None]]:
        """Its part of that order behind ``position``, final or not: (where that is, operations)."""
        return position + 1, ()

    @staticmethod
    @abstractmethod
    def candidates(params: Any, op: Op, view: ClusterView) -> Sequence[int]:
        """The nodes that may serve the operation; pure and cheap."""

    @staticmethod
    @abstractmethod
    def claims(params: Any, context: ClaimContext) -> frozenset[str]:
        """Levels that hold for every history of this configuration, where none is asked for."""

    @staticmethod
    def authority_of(params: Any) -> type[Machine] | None:
        """The machine that watches over the nodes from node n; None where it needs none."""
        return None

    @classmethod
    def kinds_of(cls, params: Any) -> frozenset[int]:
        """Those of ``kinds`` that it serves with these parameters."""
        return cls.kinds

    @staticmethod
    def read_levels(params: Any, context: ClaimContext) -> frozenset[str]:
        """Levels that a single read may ask for."""
        return frozenset()

    @staticmethod
    def demands(params: Any, replicas: int, level: str) -> Demands | None:
        """What reads at ``level`` (empty: of none) and writes ask of the nodes; None: unsaid."""
        return None

    @staticmethod
    def why_not(params: Any, context: ClaimContext, level: str) -> str:
        """Why this configuration cannot claim ``level``, with its figures; empty: no more to say
        than the catalogue does.
        """
        return ""

    @staticmethod
    def validate(params: Any, replicas: int, nodes: int) -> str | None:
        """Why these parameters cannot run on that many replicas and nodes; None if they can."""
        return None if nodes == replicas else "every node holds a copy: nodes equals replicas"
