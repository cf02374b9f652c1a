"""Where keys are: which shard a key belongs to, and which nodes hold that shard; and how both
change when an operator adds or removes a shard or a node.

All of it is a pure value that follows from the configuration, the same at clients and nodes. Time
is divided into *epochs*: epoch 0 is how the run begins, and each command begins the next one. A
*group* is a set of nodes that replicate a shard together; where the nodes of a shard change, it
goes over to another group as a whole.

A *cell* is a set of keys that are always together: its groups are the same in every epoch. What
changes its group moves cell by cell, so a move is divided into ``portions``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

from orchestrator.core.hashing import hashed
from orchestrator.core.machine import ClusterView

ADD_SHARD: Final = "add_shard"
REMOVE_SHARD: Final = "remove_shard"
ADD_NODE: Final = "add_node"
REMOVE_NODE: Final = "remove_node"
MOVING: Final = frozenset({ADD_SHARD, REMOVE_SHARD, ADD_NODE, REMOVE_NODE})
"""Commands that change where keys are."""

NOBODY: Final = -1
_KNOWN_KEYS: Final = 1 << 17
"""Keys whose cell is kept; hashing one again costs a microsecond or two."""
CELLS_MAX: Final = 1 << 62


class ShardMap(Protocol):
    """Which of ``shards`` a key belongs to: a pure value, alike at clients and nodes.

    Raises ParameterError, when it is made, for parameters that do not fit these shards.
    """

    def __init__(self, params: Any, shards: Sequence[int]) -> None: ...

    @abstractmethod
    def shard_of(self, key: bytes) -> int:
        """The shard of a key."""

    @abstractmethod
    def share(self, shard: int) -> float:
        """The part of all keys that the shard is meant to have."""


@dataclass(frozen=True)
class Group:
    """The nodes that replicate a shard; what a node is called inside is its place among them."""

    shard: int
    nodes: tuple[int, ...]

    @cached_property
    def rank(self) -> Mapping[int, int]:
        """The place of each of its nodes."""
        return {node: rank for rank, node in enumerate(self.nodes)}

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """All places."""
        return tuple(range(len(self.nodes)))

    def names(self, nodes: int) -> dict[int, int]:
        """What its machines call each of ``nodes`` that they know: the authority comes behind all
        nodes, and nobody is nobody.
        """
        return {NOBODY: NOBODY, nodes: len(self.nodes), **self.rank}

    def view(self, outside: ClusterView) -> ClusterView:
        """What a client knows, as the group's machines call it; who is not of the group is taken
        for its first node.
        """
        rank = self.rank
        return ClusterView(self.ranks, rank.get(outside.writer, 0), rank.get(outside.reader, 0))


@dataclass(frozen=True)
class Change:
    """An operator's command about a shard or a node, which begins an epoch."""

    command: str
    subject: int


@dataclass(frozen=True)
class Epoch:
    """Keys to shards, and shards to groups (by their number among all groups)."""

    map: ShardMap
    group_of: Mapping[int, int]


class Layouts:
    """All epochs of a run. ``changes[e]`` begins epoch e + 1."""

    def __init__(
        self,
        nodes: int,
        groups: Sequence[Group],
        epochs: Sequence[Epoch],
        changes: Sequence[Change] = (),
        portions: int = 1,
    ) -> None:
        self.nodes = nodes
        self.groups = tuple(groups)
        self.epochs = tuple(epochs)
        self.changes = tuple(changes)
        self._portions = portions
        self._cells: dict[bytes, int] = {}
        self._paths: dict[int, tuple[int, ...]] = {}
        self._owners: dict[int, tuple[int, ...]] = {}
        if len(groups) ** len(epochs) * portions > CELLS_MAX:
            raise ValueError(f"{len(changes)} changes of {len(groups)} groups are too many")

    @property
    def moves(self) -> bool:
        """Whether anything ever changes."""
        return bool(self.changes)

    @cached_property
    def whole(self) -> bool:
        """Whether every node holds every shard, always."""
        return not self.moves and all(len(group.nodes) == self.nodes for group in self.groups)

    def cell_of(self, key: bytes) -> int:
        """The cell of a key; without changes the number of its group, which is that of its shard.

        What it has worked out it remembers, so that an operation costs a look-up.
        """
        cell = self._cells.get(key)
        if cell is None:
            if len(self._cells) >= _KNOWN_KEYS:
                self._cells.clear()
            cell = self._cells[key] = self._cell(key)
        return cell

    def _cell(self, key: bytes) -> int:
        path = [epoch.group_of[epoch.map.shard_of(key)] for epoch in self.epochs]
        portion = 0
        if self._portions > 1 and any(group != path[0] for group in path):
            # The shard may follow from the same hash, so another one cuts it up.
            portion = hashed(b"portion/" + key) % self._portions
        cell = 0
        for group in reversed(path):
            cell = cell * len(self.groups) + group
        return cell * self._portions + portion

    def path(self, cell: int) -> tuple[int, ...]:
        """The group of a cell in each epoch. Raises ValueError where it cannot be one."""
        path = self._paths.get(cell)
        if path is None:
            left, groups = cell // self._portions, []
            for _ in self.epochs:
                left, group = divmod(left, len(self.groups))
                groups.append(group)
            if left or cell < 0:
                raise ValueError(f"there is no cell {cell}")
            path = self._paths[cell] = tuple(groups)
        return path

    def owners(self, cell: int) -> tuple[int, ...]:
        """The groups that ever have a cell, the last ones first."""
        owners = self._owners.get(cell)
        if owners is None:
            owners = self._owners[cell] = tuple(dict.fromkeys(reversed(self.path(cell))))
        return owners

    def group_at(self, epoch: int, key: bytes) -> Group:
        """Who holds a key in an epoch."""
        return self.groups[self.path(self.cell_of(key))[epoch]]

    def hosted(self, node: int) -> tuple[int, ...]:
        """The groups that a node ever belongs to; the authority belongs to all."""
        every = range(len(self.groups))
        return tuple(n for n in every if node == self.nodes or node in self.groups[n].rank)

    def first_view(self, cell: int) -> ClusterView:
        """What a client knows of a cell in the beginning."""
        if self.whole:
            return ClusterView(tuple(range(self.nodes)))
        path = self.path(cell)
        nodes = tuple(dict.fromkeys(node for group in path for node in self.groups[group].nodes))
        return ClusterView(nodes, nodes[0], nodes[0])


# --- placement --------------------------------------------------------------------------


def chained(shard: int, nodes: Sequence[int], replicas: int) -> tuple[int, ...]:
    """Neighbours, and another first one for each shard (Hsiao and DeWitt, "Chained
    Declustering", ICDE 1990): every node is first of as many shards, give or take one.
    """
    return tuple(nodes[(rank - shard) % len(nodes)] for rank in range(replicas))


def whole(shards: int, nodes: int, shard_map: ShardMap) -> Layouts:
    """Every node holds every shard."""
    groups = [Group(shard, chained(shard, range(nodes), nodes)) for shard in range(shards)]
    return Layouts(nodes, groups, [Epoch(shard_map, dict(enumerate(range(shards))))])


class Planner:
    """Works out the epochs. Raises ValueError, with what is wrong, for a change that cannot be.

    ``make`` makes the map of the shards that there are. Shards and nodes that are added later,
    and not removed before, are not there in the beginning.
    """

    def __init__(
        self,
        shards: int,
        nodes: int,
        replicas: int,
        make: Callable[[Sequence[int]], ShardMap],
        portions: int = 1,
    ) -> None:
        self._nodes, self._replicas, self._portions = nodes, replicas, portions
        self._every_shard, self._make = range(shards), make
        self._groups: list[Group] = []
        self._epochs: list[Epoch] = []
        self._changes: list[Change] = []
        # As they are in the newest epoch.
        self._here: list[int] = []
        self._placed: dict[int, int] = {}

    def plan(self, changes: Sequence[Change]) -> Layouts:
        """All epochs that these changes make, one after the other."""
        self._here = _at_first(range(self._nodes), changes, ADD_NODE, REMOVE_NODE)
        shards = _at_first(self._every_shard, changes, ADD_SHARD, REMOVE_SHARD)
        if len(self._here) < self._replicas:
            raise ValueError(f"{len(self._here)} nodes cannot hold {self._replicas} replicas")
        if not shards:
            raise ValueError("there is no shard in the beginning")
        for shard in shards:
            self._put(shard, chained(shard, self._here, self._replicas))
        self._begin_epoch()
        for change in changes:
            self._change(change)
            self._changes.append(change)
            self._begin_epoch()
        return Layouts(
            self._nodes, self._groups, self._epochs, self._changes, self._portions if changes else 1
        )

    def _begin_epoch(self) -> None:
        self._epochs.append(Epoch(self._make(sorted(self._placed)), dict(self._placed)))

    def _put(self, shard: int, nodes: Sequence[int]) -> None:
        self._placed[shard] = len(self._groups)
        self._groups.append(Group(shard, tuple(nodes)))

    def _change(self, change: Change) -> None:
        subject = change.subject
        match change.command:
            case "add_shard":
                if subject in self._placed:
                    raise ValueError(f"shard {subject} is there already")
                self._put(subject, self._idlest(self._replicas, ()))
            case "remove_shard":
                if subject not in self._placed:
                    raise ValueError(f"there is no shard {subject} to remove")
                if len(self._placed) == 1:
                    raise ValueError("the last shard cannot be removed")
                del self._placed[subject]
            case "add_node":
                if subject in self._here:
                    raise ValueError(f"node {subject} is there already")
                self._here.append(subject)
                self._fill(subject)
            case _:
                if subject not in self._here:
                    raise ValueError(f"there is no node {subject} to remove")
                if len(self._here) == self._replicas:
                    raise ValueError(f"{self._replicas} replicas need as many nodes")
                self._here.remove(subject)
                self._clear(subject)

    def _counts(self) -> tuple[dict[int, int], dict[int, int]]:
        """How many shards each node is first of, and holds."""
        first, held = dict.fromkeys(self._here, 0), dict.fromkeys(self._here, 0)
        for number in self._placed.values():
            nodes = self._groups[number].nodes
            first[nodes[0]] = first.get(nodes[0], 0) + 1
            for node in nodes:
                held[node] = held.get(node, 0) + 1
        return first, held

    def _idlest(self, count: int, besides: Sequence[int]) -> list[int]:
        """Nodes for a shard: first the one that is first of the fewest, then those that hold the
        fewest.
        """
        first, held = self._counts()
        chosen: list[int] = []
        for _ in range(count):
            left = [node for node in self._here if node not in besides and node not in chosen]
            burden = held if chosen or besides else first
            chosen.append(min(left, key=lambda node: (burden[node], held[node], node)))
        return chosen

    def _fill(self, new: int) -> None:
        """Give a new node its part of all places, from those that have most."""
        _, held = self._counts()
        due = sum(held.values()) // len(self._here)
        for _ in range(due):
            first, held = self._counts()
            wants_first = first[new] < len(self._placed) // len(self._here)
            held.pop(new)
            giver = max(held, key=lambda node: (held[node], first[node], -node))
            theirs = [
                shard
                for shard, number in sorted(self._placed.items())
                if giver in (nodes := self._groups[number].nodes) and new not in nodes
            ]
            leading = [s for s in theirs if self._groups[self._placed[s]].nodes[0] == giver]
            others = [shard for shard in theirs if shard not in leading]
            among = (leading or others) if wants_first else (others or leading)
            if among:
                self._replace(among[0], giver, new)

    def _clear(self, gone: int) -> None:
        """Give the places of a node to those that hold the fewest."""
        for shard, number in sorted(self._placed.items()):
            nodes = self._groups[number].nodes
            if gone in nodes:
                self._replace(shard, gone, self._idlest(1, nodes)[0])

    def _replace(self, shard: int, old: int, new: int) -> None:
        nodes = self._groups[self._placed[shard]].nodes
        replaced = [new if node == old else node for node in nodes]
        number = self._placed[shard]
        if self._epochs and number in self._epochs[-1].group_of.values():
            self._put(shard, replaced)
        else:
            # A group of the epoch that is being made: nobody has been in it yet.
            self._groups[number] = Group(shard, tuple(replaced))


def _at_first(
    every: Sequence[int], changes: Sequence[Change], adds: str, removes: str
) -> list[int]:
    """Those that are there in the beginning."""
    first: dict[int, str] = {}
    for change in changes:
        if change.command in (adds, removes):
            first.setdefault(change.subject, change.command)
    return [each for each in every if first.get(each) != adds]
