"""Who seems to serve what, as whoever asks the store has learnt: a view for each group of nodes."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core.machine import READING, ClusterView, Op


class ClusterViews:
    """``first_view``: what is known of a group in the beginning; ``group_of``: the group of an
    operation, None where there is one.
    """

    __slots__ = ("_first_view", "_group_of", "_only", "_views")

    def __init__(
        self, first_view: Callable[[int], ClusterView], group_of: Callable[[Op], int] | None
    ) -> None:
        self._group_of = group_of
        self._first_view = first_view
        self._only = first_view(0) if group_of is None else None
        self._views: dict[int, ClusterView] = {}

    def of(self, op: Op) -> ClusterView:
        """What is known of those that serve it."""
        if self._group_of is None:
            assert self._only is not None
            return self._only
        group = self._group_of(op)
        view = self._views.get(group)
        if view is None:
            view = self._views[group] = self._first_view(group)
        return view

    def learn(self, op: Op, node: int) -> None:
        """A node was named as the one that serves such operations."""
        nodes, writer, reader = self._parts(op)
        if op.kind in READING:
            self._note(op, ClusterView(nodes, writer, node))
        else:
            self._note(op, ClusterView(nodes, node, reader))

    def pass_over(self, op: Op, node: int) -> None:
        """It does not answer, or knows nobody; the one behind it may."""
        nodes, writer, reader = self._parts(op)
        if node in (writer, reader):
            following = nodes[(nodes.index(node) + 1) % len(nodes)]
            view = ClusterView(
                nodes,
                following if writer == node else writer,
                following if reader == node else reader,
            )
            self._note(op, view)

    def _parts(self, op: Op) -> tuple[tuple[int, ...], int, int]:
        view = self.of(op)
        return view.nodes, view.writer, view.reader

    def _note(self, op: Op, view: ClusterView) -> None:
        if self._group_of is None:
            self._only = view
        else:
            self._views[self._group_of(op)] = view
