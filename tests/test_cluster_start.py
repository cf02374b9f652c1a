"""start.sh over two hosts: network namespaces, and an "ssh" that enters them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "scripts" / "cluster"
BIN = Path(sys.executable).parent
NET, SUBNET = "abu", "10.76.0"
HOSTS = [f"{SUBNET}.1", f"root@{SUBNET}.2"]
ADDRESSES = [host.rpartition("@")[2] for host in HOSTS]

pytestmark = [pytest.mark.serial, pytest.mark.long, pytest.mark.timeout(300)]

# Each host has a home of its own, and no setting of this process reaches it.
SSH = f"""#!/bin/bash
number="${{1##*.}}"
home="$(dirname "$0")/home$number"
mkdir -p "$home" && cd "$home" || exit 255
exec ip netns exec "{NET}$number" env -i HOME="$home" PATH="$PATH" PYTHONPATH="{ROOT}" sh -c "$2"
"""


class Cluster:
    """Two hosts without Ray, and what is called for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ssh = folder / "ssh"
        self.ssh.write_text(SSH)
        self.ssh.chmod(0o755)
        self.environment = os.environ | {
            "ARCHBENCH_BIN": str(BIN),
            "ARCHBENCH_NET": NET,
            "ARCHBENCH_SSH": str(self.ssh),
            "ARCHBENCH_SUBNET": SUBNET,
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        }

    def call(self, *words: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """What a command said."""
        return subprocess.run(
            [str(word) for word in words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, command: str) -> subprocess.CompletedProcess[str]:
        """start.sh for both hosts."""
        return self.call(CLUSTER / "start.sh", command, *HOSTS)

    def processes(self) -> list[list[str]]:
        """Numbers of the processes on each host."""
        names = [f"{NET}{number}" for number in (1, 2)]
        return [self.call("ip", "netns", "pids", name).stdout.split() for name in names]


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    if os.geteuid() != 0 or made.call("unshare", "--net", "true").returncode:
        pytest.skip("only root can make hosts out of namespaces")
    assert made.call(CLUSTER / "namespaces.sh", "up", "2", "bare").returncode == 0
    yield made
    made.call(CLUSTER / "namespaces.sh", "down")
    for address in ADDRESSES:
        shutil.rmtree(f"/tmp/archbench-{os.getuid()}-{address}", ignore_errors=True)


def test_a_cluster_starts_and_ends_over_ssh(bare: Cluster) -> None:
    with subprocess.Popen(
        [str(bare.ssh), HOSTS[1], "exec sleep 300"], env=bare.environment
    ) as stranger:
        started = bare.start("up")
        assert started.returncode == 0, started.stderr
        for number in (1, 2):
            token = bare.folder / f"home{number}" / ".ray" / "auth_token"
            assert token.stat().st_mode & 0o777 == 0o600
        told = bare.start("status")
        assert (told.returncode, told.stdout) == (0, "".join(f"{h}: Ray runs\n" for h in HOSTS))

        asked = f"RAY_AUTH_MODE=token {BIN}/archbench doctor --address {ADDRESSES[0]}:6379 --json"
        doctor = bare.call(bare.ssh, HOSTS[0], asked)
        checks = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}
        assert doctor.returncode == 0, doctor.stdout
        assert checks["authentication"]["ok"]
        for address in ADDRESSES:
            assert "packages as here" in checks[f"host {address}"]["detail"]

        # Without the token, nobody gets in.
        (bare.folder / "home1" / ".ray" / "auth_token").write_text("another" * 8)
        stranger_asks = bare.call(bare.ssh, HOSTS[0], asked)
        assert stranger_asks.returncode == 3
        assert "no Ray cluster answers" in stranger_asks.stdout

        again = bare.start("up")
        assert again.returncode == 3
        assert "runs here already" in again.stderr
        assert bare.start("status").returncode == 0

        ended = bare.start("down")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert bare.processes() == [[], [str(stranger.pid)]]
        stranger.kill()
    told = bare.start("status")
    assert (told.returncode, told.stdout.count("no Ray of archbench")) == (1, 2)


def test_what_started_ends_when_a_host_fails(bare: Cluster) -> None:
    # The second host cannot make the folder of its sockets: something else has its name.
    blocked = Path(f"/tmp/archbench-{os.getuid()}-{ADDRESSES[1]}")
    blocked.mkdir()
    assert bare.call("mount", "-t", "tmpfs", "none", blocked).returncode == 0
    try:
        done = bare.start("up")
    finally:
        bare.call("umount", blocked)
    assert done.returncode == 3
    assert f"error: {HOSTS[1]}: start failed" in done.stderr
    assert bare.processes() == [[], []]
