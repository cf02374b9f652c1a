"""Who joins Ray leaves it: the last of several ends what the first began, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import ray

from orchestrator.errors import EnvironmentFailure
from orchestrator.runtimes import ray_cluster
from orchestrator.runtimes.ray_cluster import connect, disconnect


class Ray:
    """Stands in for Ray: whether it is joined, and what was done to it."""

    def __init__(self) -> None:
        self.joined = False
        self.done: list[str] = []

    def join(self, address: str | None) -> None:
        self.joined = True
        self.done.append("joined")

    def leave(self) -> None:
        self.joined = False
        self.done.append("left")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Ray:
    made = Ray()
    monkeypatch.setattr(ray, "is_initialized", lambda: made.joined)
    monkeypatch.setattr(ray_cluster, "_join", made.join)
    monkeypatch.setattr(ray_cluster, "_leave", made.leave)
    monkeypatch.setattr(ray_cluster, "_users", 0)
    monkeypatch.setattr(ray_cluster, "_joined_here", False)
    return made


def test_the_last_of_several_users_leaves(fake: Ray) -> None:
    connect(None)
    connect(None)
    disconnect()
    assert fake.done == ["joined"]
    disconnect()
    assert fake.done == ["joined", "left"]
    disconnect()
    assert fake.done == ["joined", "left"]
    connect(None)
    assert fake.done == ["joined", "left", "joined"]


def test_a_ray_that_was_there_before_stays(fake: Ray) -> None:
    fake.joined = True
    connect(None)
    disconnect()
    assert (fake.joined, fake.done) == (True, [])


def test_a_ray_that_somebody_else_ended_is_joined_again(fake: Ray) -> None:
    connect(None)
    fake.joined = False
    connect(None)
    disconnect()
    assert fake.done == ["joined", "joined", "left"]


def test_who_could_not_join_need_not_leave(fake: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(address: str | None) -> None:
        raise EnvironmentFailure("no cluster")

    monkeypatch.setattr(ray_cluster, "_join", fail)
    with pytest.raises(EnvironmentFailure):
        connect("10.0.0.1:6379")
    disconnect()
    assert fake.done == []


@pytest.mark.parametrize(
    ("family", "host", "written"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1:{}"),
        (socket.AF_INET, "127.0.0.1", "ray://127.0.0.1:{}"),
        (socket.AF_INET6, "::1", "[::1]:{}"),
    ],
)
def test_an_address_is_reached_however_it_is_written(
    family: socket.AddressFamily, host: str, written: str
) -> None:
    look: Callable[[str], None] = ray_cluster._reachable
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"no {host} here")
    with server:
        address = written.format(server.getsockname()[1])
        look(address)
    with pytest.raises(EnvironmentFailure, match="no Ray cluster answers"):
        look(address)
