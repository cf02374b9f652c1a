"""Clients that send operations again: retries, hedges, breakers and limits in whole runs."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from orchestrator.analysis.overload import overload
from orchestrator.analysis.resilience import course_of
from orchestrator.config.load import load_mapping
from orchestrator.core.load import OVERTAKEN, SENT
from orchestrator.core.machine import FAIL, OK, READ, UNKNOWN, WRITE
from orchestrator.core.record import RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.core.verdict import VALID, Evidence, check_claims
from orchestrator.errors import ConfigError
from orchestrator.plan import plan
from orchestrator.runtimes import simulated
from orchestrator.runtimes._attempts import Attempts
from orchestrator.runtimes._operations import Operations
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._routing import Router
from orchestrator.runtimes._session import Session

READS_ANYWHERE = {"name": "primary_backup", "mode": "async", "read_from": "any", "failover": False}


def parts(system: dict[str, Any], client: dict[str, Any], **root: Any) -> Parts:
    config = {
        "runtime": "sim",
        "seed": 5,
        "system": system,
        "client": client,
        "workload": {"name": "ycsb", "mix": "a", "keys": 100},
        "arrival": {"name": "poisson", "rate": "400/s"},
        "warmup": "500ms",
        "duration": "4500ms",
    }
    return Parts.of(load_mapping(config | root))


def claims_hold(record: RunRecord, made: Parts) -> bool:
    evidence = Evidence(digests=[node.contents_digest for node in record.nodes])
    claimed = made.system.claims(made.circumstances)
    return check_claims(record.history, claimed, evidence).verdict == VALID


def told(record: RunRecord, made: Parts) -> dict[str, Any]:
    return overload(record, course_of(record, made.config), made.config.client.timeout)


def raft(**node: Any) -> dict[str, Any]:
    modelled = {"cpu": {"read": "200us", "write": "200us"}, "storage": {"durability": "fsync"}}
    return {"protocol": {"name": "raft"}, "replicas": 3, "node": modelled | node}


# --- retries ----------------------------------------------------------------------------

IMPATIENT = {
    "timeout": "2s",
    "attempt_timeout": "50ms",
    "retry": {"attempts": 20, "backoff": {"base": "5ms", "max": "50ms"}},
}


@pytest.mark.parametrize("protocol", ["raft", "multi_paxos", "epaxos", "chain", "abd", "quorum"])
def test_retries_carry_operations_through_a_crash_and_apply_them_once(protocol: str) -> None:
    system = raft() | {"protocol": {"name": protocol}}
    crash = {"name": "crash", "target": 0, "at": "2s", "restart_after": "500ms"}
    made = parts(system, IMPATIENT, faults=[crash])
    record = simulated.run(made)
    assert claims_hold(record, made)
    assert (record.history.outcome == OK).mean() > 0.99
    attempts = told(record, made)["attempts_per_operation"]
    if made.led:
        plain = simulated.run(parts(system, {"timeout": "2s"}, faults=[crash]))
        assert (plain.history.outcome == OK).mean() < (record.history.outcome == OK).mean()
        assert attempts > 1
    else:
        # Two of three serve everything meanwhile, but for what the crashed one had.
        assert attempts >= 1


def test_without_trouble_each_operation_is_sent_once() -> None:
    made = parts(raft(), IMPATIENT)
    record = simulated.run(made)
    assert (record.history.outcome == OK).all()
    assert told(record, made)["attempts_per_operation"] == 1


def test_what_is_refused_every_time_fails_and_what_may_have_happened_is_unknown() -> None:
    """One node serves a quarter of what is asked; its queue is short, and then it crashes."""
    slow = {"cpu": {"read": "10ms", "write": "10ms"}, "queue": {"name": "fifo", "limit": 2}}
    system = {"protocol": {"name": "unreplicated"}, "node": slow}
    client = {"timeout": "500ms", "retry": {"attempts": 3, "backoff": {"base": "5ms"}}}
    made = parts(system, client)
    history = simulated.run(made).history
    assert 0.5 < (history.outcome == FAIL).mean() < 0.9
    assert not (history.outcome == UNKNOWN).any()
    # A failed write was never applied: nobody reads what it would have written.
    failed = history.value_id[(history.outcome == FAIL) & (history.kind == WRITE)]
    assert not numpy.isin(history.value_id[history.outcome == OK], failed).any()
    crash = {"name": "crash", "target": 0, "at": "2s", "restart_after": None}
    history = simulated.run(parts(system, client, faults=[crash])).history
    assert (history.outcome == UNKNOWN).any()


def test_back_pressure_spaces_retries() -> None:
    """Who hears when there will be room comes then, so fewer attempts are made in vain."""
    attempts = {}
    for informed in (False, True):
        node = {
            "cpu": {"read": "5ms", "write": "5ms"},
            "queue": {"name": "fifo", "limit": 20},
            "back_pressure": informed,
        }
        client = {"timeout": "2s", "retry": {"attempts": 50, "backoff": {"base": "1ms"}}}
        made = parts({"protocol": {"name": "unreplicated"}, "node": node}, client)
        attempts[informed] = told(simulated.run(made), made)["attempts_per_operation"]
    assert attempts[True] < attempts[False]


def test_a_storm_is_metastable_without_a_budget_and_over_with_one() -> None:
    node = {"cpu": {"read": "1ms", "write": "1ms"}, "queue": {"name": "fifo", "limit": None}}
    found = {}
    for share in (None, 0.1):
        retry = {"attempts": 4, "backoff": {"max": "100ms"}, "budget": {"share": share}}
        made = parts(
            {"protocol": {"name": "unreplicated"}, "node": node},
            {"timeout": "1s", "attempt_timeout": "200ms", "retry": retry},
            arrival={"name": "poisson", "rate": "700/s"},
            duration="17500ms",
            slo={"p99": "100ms"},
            faults=[{"name": "slow", "target": 0, "at": "4s", "lasts": "1s", "factor": 10}],
        )
        found[share] = told(simulated.run(made), made)
    assert found[None]["metastable"]["cause"] == "slow"
    assert found[None]["attempts_per_operation"] > 2
    assert found[0.1]["metastable"] is None
    assert found[0.1]["attempts_per_operation"] < 1.12


# --- hedges -----------------------------------------------------------------------------


def hedged(hedge: dict[str, Any], **root: Any) -> RunRecord:
    node = {"cpu": {"read": {"name": "exponential", "mean": "500us"}, "write": "500us"}}
    system = {
        "protocol": READS_ANYWHERE,
        "replicas": 4,
        "node": node,
        "balancer": {"name": "random"},
    }
    slow = {"name": "slow", "target": 3, "at": "0s", "lasts": "60s", "factor": 20}
    client = {"timeout": "2s", "hedge": hedge}
    workload = {"name": "ycsb", "mix": "c", "keys": 100}
    # A quarter of these is half of what the slow node can serve.
    arrival = {"name": "poisson", "rate": "200/s"}
    made = parts(system, client, faults=[slow], workload=workload, arrival=arrival, **root)
    return simulated.run(made)


def p99_ms(record: RunRecord) -> float:
    history = record.history
    took_ns = (history.returned_ns - history.intended_ns)[history.intended_ns >= NS_PER_S]
    return float(numpy.quantile(took_ns, 0.99)) / NS_PER_MS


@pytest.mark.parametrize("hedge", [{"after": "5ms"}, {"percentile": 75}])
def test_hedging_hides_a_slow_node(hedge: dict[str, Any]) -> None:
    alone, both = hedged({}), hedged(hedge)
    assert (both.history.outcome == OK).all()
    assert p99_ms(both) < p99_ms(alone) / 2
    extra = sum(client.extra_attempts for client in both.clients)
    assert 0.05 < extra / (both.history.intended_ns >= NS_PER_S // 2).sum() < 0.6


@pytest.mark.parametrize("protocol", ["causal", "abd", "quorum"])
def test_a_write_that_may_have_happened_is_not_sent_to_nodes_that_would_take_it_for_new(
    protocol: str,
) -> None:
    system = raft() | {"protocol": {"name": protocol}}
    jitter = {"name": "jitter", "target": "all", "at": "1s", "lasts": "3s", "clients": True}
    made = parts(system, IMPATIENT | {"attempt_timeout": "5ms"}, faults=[jitter])
    assert not made.known_again
    sent: dict[tuple[int, int], int] = {}
    original = Attempts.sent

    def count(self: Attempts, session: Session, now_ns: int, *, hedging: bool) -> None:
        op = session.op
        sent[op.kind, session.attempt] = sent.get((op.kind, session.attempt), 0) + 1
        original(self, session, now_ns, hedging=hedging)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Attempts, "sent", count)
        record = simulated.run(made)
    assert claims_hold(record, made)
    assert sent[READ, 1] > 10
    assert (WRITE, 1) not in sent


def test_balancers_hear_of_every_attempt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under crashes, time-outs, refusals and hedges at once."""
    out: dict[int, int] = {}
    heard = {SENT: 0, OVERTAKEN: 0}
    original = Router.__init__

    def watched(self: Router, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        told = self.observe

        def observe(node: int, what: int, latency_ns: int, now_ns: int) -> None:
            out[node] = out.get(node, 0) + (1 if what == SENT else -1)
            assert out[node] >= 0
            heard[what] = heard.get(what, 0) + 1
            told(node, what, latency_ns, now_ns)

        self.observe = observe

    monkeypatch.setattr(Router, "__init__", watched)
    node = {"cpu": {"read": "2ms", "write": "2ms"}, "queue": {"name": "fifo", "limit": 3}}
    made = parts(
        {"protocol": {"name": "quorum"}, "replicas": 3, "node": node},
        IMPATIENT | {"attempt_timeout": "20ms", "hedge": {"after": "5ms"}},
        faults=[{"name": "crash", "target": 1, "at": "1s", "restart_after": "1s"}],
    )
    record = simulated.run(made)
    assert not any(out.values())
    assert heard[SENT] > len(record.history)
    assert heard[OVERTAKEN] > 0


# --- breakers and limits ----------------------------------------------------------------


def test_a_breaker_keeps_operations_off_a_silent_node() -> None:
    lost = {}
    for failures in (None, 3):
        system = {"protocol": READS_ANYWHERE, "replicas": 3, "node": {"cpu": {"read": "200us"}}}
        made = parts(
            system,
            {"timeout": "50ms", "shun_silent": False, "breaker": {"failures": failures}},
            workload={"name": "ycsb", "mix": "c", "keys": 100},
            faults=[{"name": "pause", "target": 2, "at": "1s", "lasts": "3s"}],
        )
        lost[failures] = int((simulated.run(made).history.outcome != OK).sum())
    assert lost[3] < lost[None] / 10


def test_an_open_breaker_fails_at_once() -> None:
    system = {"protocol": {"name": "unreplicated"}}
    made = parts(
        system,
        {"timeout": "50ms", "breaker": {"failures": 2, "open": "500ms"}},
        faults=[{"name": "pause", "target": 0, "at": "1s", "lasts": "2s"}],
    )
    history = simulated.run(made).history
    failed = history.outcome == FAIL
    assert failed.sum() > 300
    assert (history.returned_ns - history.invoked_ns)[failed].max() == 0
    assert (history.outcome == UNKNOWN).sum() < 100
    assert (history.outcome[history.intended_ns > 4 * NS_PER_S] == OK).all()


@pytest.mark.parametrize("closed", [False, True])
def test_no_more_is_under_way_than_the_limit_says(
    closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    original = Operations._begin

    def begin(self: Operations, *arguments: Any) -> None:
        nonlocal most
        original(self, *arguments)
        most = max(most, self.outstanding)

    monkeypatch.setattr(Operations, "_begin", begin)
    arrival = {"name": "closed", "sessions": 20} if closed else {"name": "poisson", "rate": "700/s"}
    made = parts(
        {"protocol": {"name": "unreplicated"}, "node": {"cpu": {"read": "1ms", "write": "1ms"}}},
        {"limit": {"name": "fixed", "at": 4}},
        arrival=arrival,
    )
    record = simulated.run(made)
    assert most == 4
    assert (record.history.outcome == OK).all()
    assert record.clients[0].lag_ns.max() == 0


def test_a_limit_that_adapts_keeps_the_queue_short() -> None:
    """Twenty sessions ask one node: without a limit nineteen of them queue there."""
    took_ms = {}
    for limit in (None, {"name": "aimd", "slow": "4ms"}, {"name": "gradient"}):
        made = parts(
            {"protocol": {"name": "unreplicated"}, "node": {"cpu": {"read": "1ms"}}},
            {"limit": limit},
            arrival={"name": "closed", "sessions": 20},
            workload={"name": "ycsb", "mix": "c", "keys": 100},
        )
        history = simulated.run(made).history
        took_ns = (history.returned_ns - history.invoked_ns)[history.intended_ns > NS_PER_S]
        took_ms[str(limit and limit["name"])] = float(took_ns.mean()) / NS_PER_MS
    assert took_ms["None"] == pytest.approx(20, rel=0.05)
    assert took_ms["aimd"] < 6


@pytest.mark.parametrize(
    ("client", "path"),
    [
        ({"attempt_timeout": "1ms"}, "client.attempt_timeout"),
        ({"retry": {"attempts": 0}}, "client.retry.attempts"),
        ({"retry": {"backoff": {"base": "1s", "max": "1ms"}}}, "client.retry.backoff.max"),
        ({"retry": {"budget": {"share": -1}}}, "client.retry.budget.share"),
        ({"hedge": {"after": "1ms", "percentile": 95}}, "client.hedge.percentile"),
        ({"hedge": {"percentile": 100}}, "client.hedge.percentile"),
        ({"breaker": {"failures": 0}}, "client.breaker.failures"),
        ({"limit": {"name": "fixd"}}, "client.limit"),
        ({"limit": {"name": "aimd", "start": 0}}, "client.limit.start"),
    ],
)
def test_bad_input(client: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_mapping({"client": client})
    assert caught.value.path is not None
    assert caught.value.path.startswith(path)


@pytest.mark.parametrize("client", [{"retry": {"attempts": 2}}, {"hedge": {"after": "1ms"}}])
def test_real_servers_would_apply_a_repeated_write_again(client: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="again"):
        plan(load_mapping({"system": {"name": "redis"}, "client": client}))
