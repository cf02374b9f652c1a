"""The fuzzer itself: what a seed is, how a failure is minimised and kept, what the command says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from orchestrator.cli import main
from orchestrator.core.machine import Effect, Reply
from orchestrator.core.registry import Family, plugins
from orchestrator.core.units import parse_duration_ns
from orchestrator.errors import ConfigError, DataError, InputError
from orchestrator.fuzz import FAULTS_MIN, Wanted, simulate_seed, simulate_seeds
from orchestrator.fuzzing.draw import OPERATIONS_MIN, PACES, draw
from orchestrator.fuzzing.minimise import minimise
from orchestrator.fuzzing.profiles import PROFILES
from orchestrator.fuzzing.scenario import Fault, Scenario, dump, load
from orchestrator.fuzzing.simulation import simulate
from orchestrator.protocols.raft import Raft

REPLICATED = [name for name in plugins(Family.PROTOCOL) if name != "unreplicated"]


class AnswersTooSoon(Raft):
    """Answers a write before any follower has it."""

    def _propose(self, ops: Any, handles: Any, effects: list[Effect]) -> None:
        super()._propose(ops, handles, effects)
        for handle, op in zip(handles or (), ops, strict=False):
            if op.value is not None:
                effects.append(Reply(handle, 0, None, self.log.last))


def signature(scenario: Scenario) -> str:
    """What a simulation did, in a few words."""
    outcome = simulate(scenario)
    history = outcome.history
    assert history is not None
    total = int(history.returned_ns.sum() % 10**9) + int(history.version.sum())
    return (
        f"{outcome.operations} {outcome.effective_faults} {sorted(outcome.marks.items())} {total}"
    )


# --- seeds ------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", REPLICATED)
def test_a_seed_is_no_toy(protocol: str) -> None:
    for seed in range(4):
        scenario, outcome = simulate_seed(Wanted(protocol), seed)
        assert outcome.violation is None, outcome.violation
        assert outcome.operations >= OPERATIONS_MIN
        assert outcome.effective_faults >= FAULTS_MIN
        longest_ns = max(
            (
                parse_duration_ns(value)
                for key, value in scenario.system["protocol"].items()
                if key != "name"
                and isinstance(value, str)
                and value.endswith("s")
                and value[:1].isdigit()
            ),
            default=0,
        )
        assert scenario.heal_ns >= 20 * longest_ns


def test_the_same_seed_is_the_same_simulation_in_every_process() -> None:
    here = [signature(draw("raft", seed)) for seed in (3, 4)]
    assert here[0] != here[1]
    program = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_fuzz import *\n"
        "print([signature(draw('raft', seed)) for seed in (3, 4)])"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.strip() == str(here)


def test_profiles_differ_in_their_faults() -> None:
    def share(profile: str, kind: str) -> float:
        faults: list[str] = [
            fault.kind for seed in range(20) for fault in draw("raft", seed, profile=profile).faults
        ]
        return faults.count(kind) / len(faults)

    assert share("recovery", "crash") > 1.5 * share("mixed", "crash")
    with pytest.raises(InputError, match="unknown profile"):
        draw("raft", 1, profile="recover")
    assert {"mixed", "recovery", "membership"} <= set(PROFILES)


def test_fixed_parameters_are_not_drawn() -> None:
    fixed = {"mode": "async"}
    for seed in range(10):
        scenario = draw("primary_backup", seed, fixed=fixed)
        assert scenario.system["protocol"]["mode"] == "async"


def test_parameters_that_contradict_each_other_are_drawn_again() -> None:
    drawn = [draw("raft", seed).system["protocol"] for seed in range(60)]
    assert {(each["reads"], each["pre_vote"]) for each in drawn} == {
        ("log", True),
        ("log", False),
        ("read_index", True),
        ("read_index", False),
        ("lease", True),
    }
    leased = [draw("raft", seed, fixed={"reads": "lease"}) for seed in range(10)]
    assert all(each.system["protocol"]["pre_vote"] for each in leased)
    with pytest.raises(ConfigError, match="a lease holds only while"):
        draw("raft", 1, fixed={"reads": "lease", "pre_vote": False})


def test_the_longest_time_out_that_is_drawn_is_one_pace() -> None:
    for seed in range(30):
        scenario = draw("raft", seed)
        drawn = scenario.system["protocol"]
        names = ("election_timeout", "election_timeout_max", "heartbeat")
        lasting_ns = {name: parse_duration_ns(drawn[name]) for name in names if name in drawn}
        assert max(lasting_ns.values()) == scenario.heal_ns // PACES
        assert lasting_ns["election_timeout"] == pytest.approx(
            10 * lasting_ns["heartbeat"], rel=0.01
        )
    assert len(lasting_ns) in (2, 3)


def test_in_the_membership_profile_new_leaders_hear_a_command_at_once() -> None:
    scenarios = [draw("raft", seed, profile="membership") for seed in range(20)]
    counts = [len(each.faults) for each in scenarios]
    assert any(count < 40 for count in counts) and any(count >= 400 for count in counts)
    alone = [each for each in scenarios if "shards" not in each.system]
    told = [fault for each in alone for fault in each.faults if fault.kind == "ambush"]
    assert told and {fault.command for fault in told} == {"remove"}
    others = [draw("multi_paxos", seed, profile="membership") for seed in range(5)]
    assert not any(fault.command for each in others for fault in each.faults)


def test_who_comes_to_lead_in_an_ambush_does_what_it_is_told() -> None:
    """The first leader crashes; the links of the next are well, and it stays for some time."""
    scenario = draw("raft", 1, fixed={"pre_vote": True})
    heal_ns = scenario.heal_ns
    crash = Fault("crash", heal_ns // 4, heal_ns // 2, "leader")
    ambush = Fault("ambush", 0, heal_ns // 2, after_ns=heal_ns, command="remove")
    assert "shards" not in scenario.system
    for faults, changes in (((crash, ambush), True), ((crash, replace(ambush, command="")), False)):
        outcome = simulate(replace(scenario, faults=faults))
        assert outcome.violation is None
        assert outcome.marks["leader"] >= 2
        assert ("membership_change" in outcome.marks) == changes


# --- failures ---------------------------------------------------------------------------


def first_failure(machine: type[Any], protocol: str = "raft") -> tuple[Scenario, Any]:
    for seed in range(100):
        scenario, outcome = simulate_seed(Wanted(protocol), seed, machine)
        if outcome.violation is not None:
            return scenario, outcome
    raise AssertionError("it was never caught")


def test_a_failing_scenario_is_minimised_and_kept(tmp_path: Path) -> None:
    scenario, outcome = first_failure(AnswersTooSoon)
    smallest = minimise(scenario, outcome, AnswersTooSoon, runs_max=200)
    small = smallest.scenario
    assert len(small.operations) < len(scenario.operations) / 4
    assert len(small.faults) < len(scenario.faults)
    assert small.nodes <= scenario.nodes
    file = tmp_path / "small.yaml"
    file.write_text(dump(small))
    assert load(file) == small
    again = simulate(load(file), AnswersTooSoon)
    assert again.violation == smallest.outcome.violation
    assert again.violation is not None and outcome.violation is not None
    assert again.violation.property == outcome.violation.property
    assert simulate(small).violation is None, "the right machine passes it"


def test_what_was_found_is_told_with_its_witness() -> None:
    found = simulate_seeds(Wanted("raft"), range(2), AnswersTooSoon)
    assert found.seeds == 2
    assert found.failures
    for failure in found.failures:
        assert failure.violation.explanation
        if failure.violation.property == "linearizable":
            assert failure.violation.witness


def test_a_restart_without_records_is_refused() -> None:
    scenario = draw("raft", 1)
    storage = scenario.system["node"]["storage"] | {"durability": "memory"}
    forgetful = scenario.system | {"node": scenario.system["node"] | {"storage": storage}}
    crash = Fault("crash", 10_000_000, 20_000_000, 0)
    with pytest.raises(ConfigError, match="cannot come back under durability: memory"):
        simulate(replace(scenario, system=forgetful, faults=(crash,)))


# --- files and the command --------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("operations:", "operations: ["), "no YAML"),
        (lambda text: text.replace("write, 0]", "wriet, 0]", 1), "unknown op 'wriet'"),
        (lambda text: text.replace("protocol: raft", "protokoll: raft"), "no scenario"),
        (lambda text: text.replace("kind: crash", "kind: crush", 1), "no scenario"),
        (lambda text: "- 1\n", "no scenario"),
        (lambda text: text.replace("keys: ", "keys: 0 # ", 1), "there is no key"),
    ],
)
def test_broken_scenario_files(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    seeds = (draw("raft", seed) for seed in range(50))
    scenario = next(
        each
        for each in seeds
        if any(step.op == "write" and step.key == 0 for step in each.operations)
        and any(fault.kind == "crash" for fault in each.faults)
    )
    text = dump(scenario)
    changed = change(text)
    assert changed != text
    file = tmp_path / "broken.yaml"
    file.write_text(changed)
    with pytest.raises(DataError, match=message) as caught:
        load(file)
    assert str(file) in str(caught.value)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--results", str(tmp_path)]
    assert main(["fuzz", "raft", "--seeds", "3", "--json", *folder]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["protocol"] == "raft"
    assert (found["seeds"], found["violations"]) == (3, [])
    assert found["seeds_per_minute"] > 0
    assert found["coverage"]["leader"] >= 3
    assert main(["fuzz", "raft", "--seed", "7", *folder]) == 0
    assert "no violation" in capsys.readouterr().out
    file = tmp_path / "kept.yaml"
    file.write_text(dump(draw("raft", 3)))
    assert main(["fuzz", "raft", "--scenario", str(file), *folder]) == 0
    assert main(["fuzz", "primary_backup", "--scenario", str(file), *folder]) == 2
    assert "is of protocol 'raft'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["raftt"], "unknown protocol 'raftt'"),
        (["raft", "--seeds", "0"], "0 is not a number of seeds"),
        (["raft", "heartbeet=1ms"], "unknown key 'heartbeet'"),
        (["raft", "--profile", "wild"], "unknown profile 'wild'"),
        (["raft", "--scenario", "nowhere.yaml"], "cannot read the scenario"),
    ],
)
def test_wrong_input(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fuzz", *arguments, "--results", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
