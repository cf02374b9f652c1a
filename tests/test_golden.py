"""What each protocol does in scenarios that are kept, told in full: a change shows as a diff.

``python tests/test_golden.py`` tells them anew, after a change that was meant.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.core.history import History
from orchestrator.core.machine import KIND_NAMES, OUTCOME_NAMES
from orchestrator.core.registry import Family, plugins
from orchestrator.core.verdict import key_text
from orchestrator.fuzz import FAULTS_MIN, Wanted, simulate_seed
from orchestrator.fuzzing.cluster import FuzzedCluster
from orchestrator.fuzzing.profiles import PROFILES
from orchestrator.fuzzing.scenario import Scenario, dump, load
from orchestrator.fuzzing.simulation import parts_of, simulate

GOLDEN = Path(__file__).parent / "golden"
PROTOCOLS = [*plugins(Family.PROTOCOL), *plugins(Family.TRANSACTIONS)]


def _profiles(protocol: str) -> list[str]:
    """In which it is simulated; only some protocols hear commands."""
    known = plugins(Family.PROTOCOL).get(protocol)
    commanded = known is not None and bool(known.implementation.commands)
    moving = known is not None and known.implementation.ordered
    left_out = {"membership": not commanded, "moving": not moving}
    return [profile for profile in PROFILES if not left_out.get(profile, False)]


NAMES = [f"{protocol}-{profile}" for protocol in PROTOCOLS for profile in _profiles(protocol)]


def transcript(scenario: Scenario, machine: type[Any] | None = None) -> str:
    """What became of each operation, who led when, what was reached, what the nodes had to do
    for it, and what they hold at the end; times in milliseconds.
    """
    cluster = FuzzedCluster(parts_of(scenario, machine), scenario)
    cluster.plan()
    cluster.run()
    for node in cluster.fuzzed:
        cluster.collect_marks(node)
    history = History.concatenate([client.driver.history() for client in cluster.clients])
    history = history.select(history.invoked_ns.argsort(kind="stable"))
    lines = []
    for row in range(len(history)):
        took_ns = history.returned_ns[row] - history.invoked_ns[row]
        outcome = OUTCOME_NAMES[history.outcome[row]]
        lines.append(
            f"{_ms(history.invoked_ns[row])} {KIND_NAMES[history.kind[row]]:<5}"
            f" {key_text(history, int(history.key[row]))} at {history.node[row]}: {outcome}"
            + (
                f" after {took_ns / 1e6:.6f}, value {history.value_id[row]}"
                if outcome == "ok"
                else ""
            )
        )
    lines += [
        f"{_ms(event.at_ns)} node {event.node}: {event.kind} {event.detail}"
        for event in cluster.events
    ]
    lines += [f"{what}: {count}" for what, count in sorted(cluster.marks.items())]
    for replica in cluster.nodes:
        held = sorted(replica.shell.machine.contents().items())
        told = [f"{key.decode()} = {entry.value.hex()} ({entry.version})" for key, entry in held]
        shell = replica.shell
        lines.append(
            f"node {replica.node} took {shell.operations} operations, {shell.messages} messages"
            f" and wrote {shell.durable_records} records since it last started"
        )
        lines.append(f"node {replica.node} holds {', '.join(told) or 'nothing'}")
    return "\n".join(lines) + "\n"


def _ms(time_ns: int) -> str:
    return f"{time_ns / 1e6:>12.6f}"


def compare(name: str) -> str:
    """The differences; empty where it does what it did."""
    before = (GOLDEN / f"{name}.txt").read_text().splitlines()
    now = transcript(load(GOLDEN / f"{name}.yaml")).splitlines()
    return "\n".join(difflib.unified_diff(before, now, "before", "now", n=1, lineterm=""))


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_does_what_it_did(name: str) -> None:
    assert compare(name) == ""


@pytest.mark.parametrize("name", NAMES)
def test_what_it_did_is_right(name: str) -> None:
    outcome = simulate(load(GOLDEN / f"{name}.yaml"))
    assert outcome.violation is None
    assert name.startswith("unreplicated") or outcome.effective_faults >= FAULTS_MIN


def kept(protocol: str, profile: str) -> Scenario:
    """The simulation of a seed, another one in each profile, since the seed draws the protocol's
    parameters too; of all profiles but the mixed one with a third of its operations.
    """
    whole = simulate_seed(Wanted(protocol, profile), list(PROFILES).index(profile))[0]
    if profile == "mixed":
        return whole
    load_steps = [step for step in whole.operations if step.at_ns < whole.final_ns]
    final = [step for step in whole.operations if step.at_ns >= whole.final_ns]
    return msgspec.structs.replace(whole, operations=(*load_steps[::3], *final[:12]))


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each in NAMES:
        file = GOLDEN / f"{each}.yaml"
        if not file.exists():
            file.write_text(dump(kept(*each.split("-"))))
        file.with_suffix(".txt").write_text(transcript(load(file)))
