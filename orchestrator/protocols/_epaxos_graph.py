"""In which order EPaxos executes: strongly connected components of the dependency graph.

Section 4.3.2 of the paper that :mod:`orchestrator.protocols.epaxos` names, by Tarjan's
algorithm ("Depth-first search and linear graph algorithms", SIAM J. Comput. 1972) without
recursion. An instance also depends on the ones that answered its sessions before: its
operations name them, so every node sees the same graph.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.protocols._epaxos_instances import Instance, Row, instance_in
from orchestrator.protocols._epaxos_messages import COMMITTED, EXECUTED

Name = tuple[int, int]


class Blocked(Exception):
    """Execution needs an instance that is not committed here: (row, number)."""

    def __init__(self, name: Name) -> None:
        super().__init__(name)
        self.name = name


def before_sessions(instance: Instance, rows: list[Row]) -> list[tuple[int, int, bool]]:
    """The instances that an instance's sessions saw last and that are not executed here:
    (row, number, whether all before it in the row count too).

    A session that carries no context is taken to stay at one node.
    """
    if instance.before is None:
        found = []
        for op in instance.ops:
            if op.context:
                row, number = instance_in(op.context, len(rows))
                if number > rows[row].executed:
                    found.append((row, number, False))
            elif op.sequence > 1 and instance.number - 1 > rows[instance.row].executed:
                found.append((instance.row, instance.number - 1, True))
        instance.before = found
    elif instance.before:
        instance.before = [each for each in instance.before if each[1] > rows[each[0]].executed]
    return instance.before


class Graph:
    """Finds what can be executed once an instance is committed."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows
        # Instances that wait for one that is not committed.
        self._waiting: dict[Name, list[Instance]] = {}

    def committed(self, instance: Instance) -> Iterator[list[Instance]]:
        """Components to execute, in order; each must be executed before the next is asked for."""
        retry = [instance, *self._waiting.pop((instance.row, instance.number), ())]
        for root in retry:
            if root.phase == EXECUTED:
                continue
            if self._is_ready(root):
                yield [root]
                continue
            try:
                yield from self._components(root)
            except Blocked as blocked:
                row, number = blocked.name
                self._rows[row].top = max(self._rows[row].top, number)
                self._waiting.setdefault(blocked.name, []).append(root)

    def check(self) -> None:
        """Nothing waits for what is committed."""
        for (row, number), waiting in self._waiting.items():
            found = self._rows[row].instances.get(number)
            assert number > self._rows[row].executed
            assert found is None or found.phase < COMMITTED
            assert waiting

    def _is_ready(self, instance: Instance) -> bool:
        """Whether it is clear at a glance that nothing is missing."""
        if instance.void:
            return True
        for upto, row in zip(instance.deps, self._rows, strict=True):
            if upto > row.executed:
                return False
        return not before_sessions(instance, self._rows)

    def _needs(self, instance: Instance) -> Iterator[Instance]:
        """What has to be executed before an instance, and is not; raises Blocked."""
        if instance.void:
            return
        spans = [(row, upto, True) for row, upto in enumerate(instance.deps)]
        spans += before_sessions(instance, self._rows)
        for row, upto, all_before in spans:
            known = self._rows[row]
            for number in range(known.executed + 1 if all_before else upto, upto + 1):
                found = known.instances.get(number)
                if found is None or found.phase < COMMITTED:
                    raise Blocked((row, number))
                if found.phase != EXECUTED and found is not instance:
                    if found.blocked_by is not None and not self._is_committed(found.blocked_by):
                        raise Blocked(found.blocked_by)
                    yield found

    def _is_committed(self, name: Name) -> bool:
        row, number = name
        if number <= self._rows[row].executed:
            return True
        found = self._rows[row].instances.get(number)
        return found is not None and found.phase >= COMMITTED

    def _components(self, root: Instance) -> Iterator[list[Instance]]:
        order: dict[Instance, int] = {root: 0}
        low: dict[Instance, int] = {root: 0}
        path: dict[Instance, bool] = {root: True}  # Tarjan's stack, with membership
        calls = [(root, self._needs(root))]
        while calls:
            instance, needs = calls[-1]
            try:
                found = next(needs, None)
            except Blocked as blocked:
                # Everything on the path needs it: who meets one of them need not look further.
                for each in path:
                    each.blocked_by = blocked.name
                raise
            if found is not None:
                if found not in order:
                    order[found] = low[found] = len(order)
                    path[found] = True
                    calls.append((found, self._needs(found)))
                elif found in path:
                    low[instance] = min(low[instance], order[found])
                continue
            calls.pop()
            if calls:
                caller = calls[-1][0]
                low[caller] = min(low[caller], low[instance])
            if low[instance] == order[instance]:
                component = []
                while True:
                    member, _ = path.popitem()
                    component.append(member)
                    if member is instance:
                        break
                component.sort(key=_in_component)
                yield component


def _in_component(instance: Instance) -> Name:
    return instance.number, instance.row
