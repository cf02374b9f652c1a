"""What doctor says of the hosts of a cluster."""

from __future__ import annotations

from orchestrator import doctor

FACTS = {
    "python": "3.11.7",
    "packages": {"archbench": "1.0", "ray": "2.60.0"},
    "cores": 8,
    "memory_bytes": 1 << 34,
    "shared_bytes": 1 << 30,
    "folder_bytes": 1 << 34,
    "importable": True,
    "timer_ns": (20_000, 40_000),
}


def test_doctor_says_what_a_host_of_a_cluster_lacks() -> None:
    assert all(check.ok for check in doctor.host_checks("h", FACTS, FACTS))
    lacking = FACTS | {
        "python": "3.12.1",
        "packages": {"archbench": None, "ray": "2.59.0"},
        "importable": False,
        "why_not": "No module named 'orchestrator'",
        "shared_bytes": 1 << 20,
        "timer_ns": None,
    }
    packages, room = doctor.host_checks("h", lacking, FACTS)
    assert not packages.ok
    assert packages.needed
    assert packages.name == "host h"
    for text in (
        "not importable (No module",
        "Python 3.12.1 (here 3.11.7)",
        "archbench missing (here 1.0)",
        "ray 2.59.0 (here 2.60.0)",
    ):
        assert text in packages.detail
    assert (room.ok, room.needed) == (False, False)
    assert "1MiB free in /dev/shm" in room.detail
    slow = doctor.host_checks("h", FACTS | {"timer_ns": (300_000, 900_000)}, FACTS)[-1]
    assert (slow.name, slow.ok, slow.needed) == ("host h timer", False, False)
