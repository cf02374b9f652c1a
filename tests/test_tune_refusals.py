"""Studies that are refused before anything runs, and those that another driver begins meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from study_toys import check_whole, make_up, source

from orchestrator.errors import ConfigError
from orchestrator.study import plan
from orchestrator.study.trials import storage_file
from orchestrator.tune import dry_run, prepare, tune


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Studies that measure nothing and draw nothing."""
    make_up(monkeypatch)
    return monkeypatch


OPEN = "arrival={name: poisson, rate: 100/s}"


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        ([OPEN], "tune.objectives[0].metric", "fixed open rate"),
        (
            [OPEN, "tune.objectives=[{metric: goodput_ops}]"],
            "tune.objectives[0].metric",
            "fixed open rate",
        ),
        (["tune.objectives=[{metric: throughput}]"], "tune.objectives[0].metric", "throughput_ops"),
        (
            ["tune.objectives=[{metric: throughput_ops}, {metric: cost}]"],
            "tune.objectives",
            "2 objectives",
        ),
        (["tune.search={}"], "tune.search", "nothing is searched"),
        (["client.sticky=false", "system.consistency=linearizable"], "system.consistency", ""),
    ],
)
def test_a_wrong_study_is_refused(
    tmp_path: Path, overrides: list[str], path: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        tune(source(*overrides), results=tmp_path / "new")
    assert caught.value.path == path and words in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "override",
    [
        "tune.search={arrival.rate: {type: float, low: 50/s, high: 500/s}}",
        "tune.objectives=[{metric: latency_ms.all.p99, direction: minimize}]",
    ],
)
def test_an_open_load_may_be_searched_in_other_ways(override: str) -> None:
    assert prepare(source(OPEN, override)).trials == 6


@pytest.mark.parametrize(
    "options",
    [
        {"trials": 0},
        {"study": "../up"},
        {"study": ".hidden"},
        {"storage": "redis://x"},
        {"results": "s3://bucket/results"},
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(source(), **options)
    assert str(caught.value.path) == f"--{next(iter(options))}"


def test_a_study_does_not_mix_configs(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"results": tmp_path, "study": "mine", "trials": 1}
    tune(source(), **options)
    for change in ("system.memory=64KiB", "seed=2", "slo.p99=81ms"):
        with pytest.raises(ConfigError, match=change.partition("=")[0]):
            tune(source(change), **options)
    assert len(tune(source(), **options | {"trials": 3}).outcomes) >= 3


def test_a_changed_config_is_another_study() -> None:
    name = prepare(source()).name
    assert name.startswith("tiny-")
    assert prepare(source("tune.trials=99")).name == name
    assert prepare(source(), trials=99).name == name
    assert len({name, *(prepare(source(it)).name for it in ("seed=2", "duration=1s"))}) == 3


def test_a_dry_run_says_what_is_left_and_writes_nothing(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    found = dry_run(prepare(source(), results=tmp_path / "new"))
    assert found["runs"] == 6 and found["nodes"] == 6
    assert found["seconds"] > 0 and found["disk_bytes"] > 0
    assert not (tmp_path / "new").exists()
    tune(source(), trials=4, results=tmp_path)
    assert dry_run(prepare(source(), results=tmp_path))["runs"] == 2


def test_a_study_has_one_home(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    name = tune(source(), trials=1, results=tmp_path).view.study
    with pytest.raises(ConfigError, match="is kept in journal") as caught:
        prepare(source(), results=tmp_path, storage="sqlite")
    assert caught.value.path == "--storage"
    (tmp_path / "studies" / f"{name}.journal").unlink()
    with pytest.raises(ConfigError, match=f"trials of the study '{name}', but .* is gone"):
        prepare(source(), results=tmp_path)
    assert prepare(source(), results=tmp_path, study="another").trials == 6


def test_a_study_may_be_begun_by_another_while_it_is_prepared(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def slowly(kind: str, folder: Path, name: str) -> Path:
        asked.append(kind)
        if len(asked) == 2:  # the file was not there when first looked for
            made_up.setattr(plan, "storage_file", storage_file)
            tune(source(), results=tmp_path, trials=2)
        return storage_file(kind, folder, name)

    made_up.setattr(plan, "storage_file", slowly)
    planned = prepare(source(), results=tmp_path, trials=4)
    assert asked and planned.exists
    tune(planned)
    check_whole(tmp_path, planned.name, 4)
