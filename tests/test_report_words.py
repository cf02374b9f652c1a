"""What the report says: numbers, comparisons and sentences."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy
import pytest
from made_views import EMPTY, HOSTILE, run_view, study_view, summary, trial

from orchestrator.report import compare, wording
from orchestrator.report.figures.series import _faults
from orchestrator.report.model import RunView, interval, metric
from orchestrator.report.page import run_page
from orchestrator.report.summary import run_words, study_words
from orchestrator.report.trust import trust_rows


def test_edge_cases_in_words() -> None:
    headlines = {name: study_words(view).headline for name, view in EMPTY.items()}
    assert headlines["no trial"] == "Nothing to report yet."
    assert headlines["nothing feasible"] == "No feasible variant was found."
    assert headlines["one trial"] == "Keep the default: no trial beat it."
    refused = " ".join(study_words(EMPTY["nothing feasible"]).sentences)
    assert "needs more memory (2 trials)" in refused
    alone = " ".join(study_words(EMPTY["no default"]).sentences)
    assert "no figure of the default" in alone


def test_a_run_has_a_tile_for_what_it_has() -> None:
    found: dict[str, Any] = {
        "cache": {"hit_ratio": 0.8, "evictions": 1234},
        "compare_and_set": {"compared": 400, "unmatched": 10, "unmatched_share": 0.025},
        "tenants": {"gold": {"goodput_ops": 99.0}, "free": {"goodput_ops": None}},
    }
    tiles = {tile.label: tile for tile in run_words(run_view(**found)).tiles}
    assert tiles["Cache hit ratio"].note == "1,234 evictions"
    assert tiles["Did not match"].note == "of 400 compare-and-sets"
    assert tiles["Did not match"].value == wording.percent(0.025)
    assert tiles["Goodput of gold"].value == wording.quantity(99.0, "ops/s")
    assert tiles["Goodput of free"].value == wording.NONE
    plain = {tile.label: tile for tile in run_words(run_view()).tiles}
    assert plain["Cache hit ratio"].note == ""
    assert not {"Did not match", "Goodput of gold"} & {*plain}


def test_what_is_not_claimed_is_not_said_to_be_kept() -> None:
    unclaimed = {"claimed": "none", "verdict": "valid", "strongest": [], "operations_checked": 0}
    words = run_words(run_view(consistency=unclaimed))
    assert "It claims no consistency, so none was checked." in words.sentences
    assert "Consistency" not in {tile.label for tile in words.tiles}
    broken = unclaimed | {"verdict": "invalid"}
    assert "Consistency" in {tile.label for tile in run_words(run_view(consistency=broken)).tiles}


def test_a_difference_within_the_noise_is_called_so() -> None:
    close = study_view(3, best=trial(2, 3010.0), default=trial(0, 3000.0))
    assert "cannot be told apart" in " ".join(study_words(close).sentences)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (18204.33, "18,204"),
        (999.7, "1,000"),
        (14.234, "14.2"),
        (39.04, "39.0"),
        (45.0, "45"),
        (0.01234, "0.0123"),
        (-3.5, "-3.50"),
    ],
)
def test_numbers_in_words(value: float | None, text: str) -> None:
    assert wording.number(value) == text


def test_shares_never_round_up_to_perfect() -> None:
    assert wording.percent(0.99998) == "99.998\u00a0%"
    assert wording.percent(1.0) == "100\u00a0%"
    assert wording.percent(0.5) == "50\u00a0%"


def test_short_names_stay_distinct() -> None:
    names = wording.short_names(
        ["system.cache.size", "workload.keys", "system.protocol.name", "a.rate", "b.rate"]
    )
    assert list(names.values()) == ["cache.size", "keys", "protocol", "a.rate", "b.rate"]


def test_ratio_interval_matches_the_normal_case() -> None:
    # With symmetric log intervals the method is the usual root of summed squares.
    low, high = compare.ratio_interval(
        2.0, (2.0 * math.exp(-0.03), 2.0 * math.exp(0.03)),
        1.0, (math.exp(-0.04), math.exp(0.04)),
    ) or (0.0, 0.0)  # fmt: skip
    assert math.log(low / 2.0) == pytest.approx(-0.05)
    assert math.log(high / 2.0) == pytest.approx(0.05)
    assert compare.ratio_interval(1.0, (0.0, 2.0), 1.0, (0.9, 1.1)) is None


def test_ratio_interval_covers_95_percent() -> None:
    generator = numpy.random.default_rng(7)
    held = 0
    for best, base in generator.normal([30.0, 20.0], [1.5, 1.0], (4000, 2)):
        low, high = compare.ratio_interval(
            best, (best - 1.96 * 1.5, best + 1.96 * 1.5), base, (base - 1.96, base + 1.96)
        ) or (0.0, 0.0)
        held += low <= 1.5 <= high
    assert held / 4000 == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(
    ("path", "best", "base", "verdict"),
    [
        ("throughput_ops", (2000.0, 10.0), (1000.0, 10.0), compare.BETTER),
        ("throughput_ops", (1000.0, 10.0), (2000.0, 10.0), compare.WORSE),
        ("throughput_ops", (1000.0, 10.0), (1010.0, 10.0), compare.UNCLEAR),
        ("latency_ms.all.p99", (1.0, 20.0), (1.0, 10.0), compare.WORSE),
        ("latency_ms.all.p99", (1.0, 10.0), (1.0, 20.0), compare.BETTER),
        ("goodput_ops", (2000.0, 10.0), (1000.0, 10.0), compare.UNCLEAR),
    ],
)
def test_verdicts_need_intervals(
    path: str, best: tuple[float, float], base: tuple[float, float], verdict: str
) -> None:
    assert compare.compare(summary(*best), summary(*base), path).verdict == verdict


def test_metrics_of_incomplete_summaries() -> None:
    assert metric(None, "throughput_ops") is None
    assert metric({"latency_ms": None}, "latency_ms.all.p99") is None
    assert metric({"valid": True}, "valid") is None
    assert metric({"outcomes": {"ok": 3, "fail": 1, "unknown": None}}, "error_rate") == 0.25
    assert metric({"outcomes": {"ok": 0, "fail": 0, "unknown": 0}}, "error_rate") is None
    assert interval({"throughput_ci95_ops": [1.0, None]}, "throughput_ops") is None
    assert interval({"throughput_ci95_ops": [1.0, 2.0]}, "throughput_ops") == (1.0, 2.0)


def test_violations_are_told_with_value_and_bound() -> None:
    violations = [
        {"metric": "read.p99", "bound": 20.0, "value": 31.42, "unit": "ms"},
        {"metric": "error_rate", "bound": 0.001, "value": 0.0124, "unit": "ratio"},
    ]
    told = compare.slo_word({"slo": {"met": False, "violations": violations}})
    assert told.replace("\u00a0", " ") == (
        "no: read.p99 is 31.4 ms, bound 20 ms; error_rate is 1.24 %, bound 0.1 %"
    )


def test_axis_labels_tell_close_ticks_apart() -> None:
    assert wording.compact(18200.0) == "18.2k"
    assert wording.compact(40001.0, 6) == "40.001k"


@pytest.mark.parametrize(
    ("found", "recovery", "lost"),
    [
        ({}, "–", "–"),
        (
            {"strikes": 1, "recovered": 1, "recovered_s": {"p50": 0.5, "max": 0.5}},
            "1 fault, recovered from in 0.500\u00a0s",
            "–",
        ),
        (
            {"strikes": 2, "recovered": 0, "recovery_unknown": 1},
            "2 faults, not recovered from",
            "–",
        ),
        (
            {"strikes": 2, "recovered": 0, "recovery_unknown": 2},
            "2 faults, recovery not known",
            "–",
        ),
        (
            {
                "strikes": 3,
                "recovered": 2,
                "recovery_unknown": 1,
                "recovered_s": {"p50": 1.0, "max": 2.0},
                "lost_acknowledged_writes": 0,
            },
            "3 faults, 2 of them recovered from (1 not known), median 1\u00a0s, longest 2\u00a0s",
            "0 acknowledged writes lost",
        ),
        (
            {"durability": "unknown", "lost_acknowledged_writes": None, "unread_keys": 193},
            "–",
            "193 written keys could not be read back",
        ),
        (
            {
                "durability": "invalid",
                "lost_acknowledged_writes": 1,
                "lost_is_least": True,
                "unread_keys": 2,
            },
            "–",
            "at least 1 acknowledged write lost; 2 written keys could not be read back",
        ),
        (
            {"durability": "invalid", "lost_acknowledged_writes": None, "unread_keys": 0},
            "–",
            "acknowledged writes lost, which cannot be counted",
        ),
    ],
)
def test_what_faults_cost_in_words(found: dict[str, object], recovery: str, lost: str) -> None:
    run = {"resilience": found}
    assert (compare.recovery(run), compare.lost_writes(run)) == (recovery, lost)


def test_a_fault_is_shaded_until_it_was_recovered_from_as_far_as_is_known() -> None:
    told = [
        {"name": "a", "at_s": 1.0, "until_s": 2.0, "recovered": False, "recovered_s": None},
        {"name": "b", "at_s": 3.0, "until_s": 4.0, "recovered": True, "recovered_s": 2.5},
        {"name": "c", "at_s": 6.0, "until_s": 6.5, "recovered": None, "recovered_s": None},
        {"name": "d", "at_s": 7.0, "until_s": None, "recovered": True, "recovered_s": 0.5},
        {"name": "e", "at_s": 8.0, "until_s": 8.5, "recovered": False, "recovered_s": None},
    ]
    found = _faults(RunView({"faults": told}), 10.0)
    assert [(each.name, each.held_s, each.back_s) for each in found] == [
        ("a", 2.0, 5.5),
        ("b", 4.0, 5.5),
        ("c", 6.5, 6.0),
        ("d", 10.0, 7.5),
        ("e", 8.5, 10.0),
    ]


def test_overload_in_words() -> None:
    told = {"overload": {"refused": 1204, "attempts_per_operation": 1.84, "metastable": None}}
    assert (
        compare.overload(told) == "1,204 operations turned away; 1.84 attempts for each operation"
    )
    assert (
        compare.overload({"overload": {"refused": 0, "attempts_per_operation": 1.0}})
        == wording.NONE
    )
    assert compare.overload({}) == wording.NONE
    collapse = {
        "cause": "<slow>",
        "cause_at_s": 6.0,
        "cause_over_s": 8.0,
        "good_share_before": 1.0,
        "good_share_after": 0.05,
    }
    text = compare.overload({"overload": {"refused": 0, "metastable": collapse}})
    assert text.startswith("metastable: the cause (<slow>) was over at 8")
    assert "5\u00a0% of the operations were good from then on, 100\u00a0% before" in text


# --- how far to trust it ------------------------------------------------------------------


def test_trust_says_what_was_found_out_about_the_measurement() -> None:
    found = summary(
        1000.0,
        10.0,
        steady_state={
            "method": "mser5",
            "warmup_s": 1.25,
            "period_s": 0.5,
            "steady": False,
            "drift": {"throughput": {"change": -0.12}, "latency": {"change": 0.3}},
        },
        latency_effective_samples={"p99": 41.6},
        precision={"asked": 0.05, "reached": 0.023, "met": True},
        generator={
            "lag_p99_ms": 0.05,
            "cpu": 0.4,
            "outstanding": 9.0,
            "outstanding_by_latency": 9.5,
        },
        hosts=[
            {"host": "a", "busy": 0.5, "steal": 0.01, "run_queue": 1.5, "loops_us": [18.0, 30.0]},
            {"host": "b", "busy": None},
        ],
    )
    rows = {name: text.replace("\u00a0", " ") for name, text in trust_rows(found)}
    assert rows == {
        "Steady": "after 1.25 s (mser5); latency comes and goes every 0.500 s; no: it drifts; "
        "throughput -12.0 %, latency +30.0 % from the first to the last part",
        "Behind the p99": "42 independent operations beyond it",
        "Precision": "within 2.3 %; 5 % asked",
        "Load generator": "0.0500 ms late at p99, CPU 40 % in use",
        "Little's law": "9 operations under way; rate times latency gives 9.50",
        "Host a": "50 % of its CPUs in use, 1 % stolen, 1.50 tasks waiting, "
        "a fixed loop took 18 to 30 us",
    }


@pytest.mark.parametrize("nothing", [None, {}, {"hosts": "x", "steady_state": []}])
def test_trust_leaves_out_what_is_not_known(nothing: Any) -> None:
    assert trust_rows(nothing) == []


def test_hostile_findings_are_shown_as_nothing_or_as_text() -> None:
    hostile = summary(
        1.0,
        1.0,
        hosts=[{"host": HOSTILE, "busy": HOSTILE, "loops_us": [HOSTILE]}, 3],
        steady_state={"method": HOSTILE, "warmup_s": HOSTILE},
        precision=HOSTILE,
    )
    page = run_page(dataclasses.replace(run_view(), summary=hostile))
    assert "How far to trust it" in page and HOSTILE not in page
