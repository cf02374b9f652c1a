"""Laws of scalability: published fits, neighbouring cases, and `archbench fit`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest

from orchestrator import cli
from orchestrator.analysis.scalability import AMDAHL, GUSTAFSON, LAWS, USL, fit, throughput

RAYTRACER_N = [1, 4, 8, 12, 16, 20, 24, 28, 32, 48, 64]
RAYTRACER_X = [20, 78, 130, 170, 190, 200, 210, 230, 260, 280, 310]


def test_the_usl_of_made_up_data() -> None:
    """Sizes and throughputs of sigma = kappa = .02 and lambda = 1, to five digits."""
    found = fit(USL, [1, 2, 4, 6, 8, 10], [1, 1.8868, 3.0769, 3.5294, 3.5398, 3.3557])
    assert found.sigma == pytest.approx(0.02, abs=5e-5)
    assert found.kappa == pytest.approx(0.02, abs=5e-6)
    assert found.one == pytest.approx(1, abs=5e-5)
    assert found.peak_n == pytest.approx(7, abs=0.01)


def test_the_usl_of_the_raytracer() -> None:
    """Gunther's measurements, as the R package usl fits them: the first six have a peak."""
    found = fit(USL, RAYTRACER_N[:6], RAYTRACER_X[:6])
    assert found.sigma == pytest.approx(0.02444, abs=5e-6)
    assert found.kappa == pytest.approx(0.00163, abs=5e-6)
    assert found.one == pytest.approx(20.856, abs=5e-4)
    assert found.peak_n == pytest.approx(24.49, abs=0.01)
    assert found.peak_throughput == pytest.approx(203.49, abs=0.01)
    assert found.limit_throughput == pytest.approx(853.2, abs=0.1)


def test_there_is_no_peak_where_kappa_is_pinned_at_zero() -> None:
    """All eleven points of the raytracer."""
    found = fit(USL, RAYTRACER_N, RAYTRACER_X)
    assert found.kappa == 0
    assert found.sigma == pytest.approx(0.05777, abs=5e-6)
    assert found.one == pytest.approx(21.849, abs=5e-4)
    assert found.peak_n is None and found.peak_throughput is None
    low, high = found.intervals["kappa"]
    assert low == 0 < high < 0.001
    same = fit(AMDAHL, RAYTRACER_N, RAYTRACER_X)
    assert same.kappa is None
    assert same.sigma == pytest.approx(found.sigma, rel=1e-6)
    # With a parameter less there is a degree of freedom more.
    assert (same.residual_standard_error or 0.0) < (found.residual_standard_error or 0.0)


def test_speed_ups_by_amdahl_and_gustafson() -> None:
    """f = .95 parallel: 5.9259 at 8 and 19.6357 at 1,024; s = .05 serial, scaled: 972.85."""
    n = numpy.array([8.0, 1024.0])
    assert throughput(AMDAHL, n, 0.05, 0, 1).tolist() == pytest.approx([5.9259, 19.6357], abs=5e-5)
    assert throughput(GUSTAFSON, n, 0.05, 0, 1)[1] == pytest.approx(972.85)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sigma", [0.0, 0.03, 0.4, 1.0])
@pytest.mark.parametrize("one", [3e-4, 1.0, 7e8])
def test_what_follows_a_law_is_found_again(law: str, sigma: float, one: float) -> None:
    n = numpy.array([1, 2, 3, 5, 9, 17], dtype=float)
    kappa = 0.004 if law == USL else 0.0
    found = fit(law, n.tolist(), throughput(law, n, sigma, kappa, one).tolist())
    assert found.sigma == pytest.approx(sigma, abs=1e-5)
    assert (found.kappa or 0.0) == pytest.approx(kappa, abs=1e-6)
    assert found.one == pytest.approx(one, rel=1e-5)
    for low, high in found.intervals.values():
        assert high - low < 1e-3 * one + 1e-3
    assert found.at(33) == pytest.approx(
        throughput(law, n * 0 + 33, sigma, kappa, one)[0], rel=1e-3
    )


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    chance = numpy.random.default_rng(3)
    n = numpy.array([1, 2, 4, 6, 8, 12, 16, 24], dtype=float)
    true = {"sigma": 0.05, "lambda": 100.0}
    held = dict.fromkeys(true, 0)
    for _ in range(60):
        measured = throughput(AMDAHL, n, 0.05, 0, 100) + chance.normal(size=len(n)) * 5
        for name, (low, high) in fit(AMDAHL, n.tolist(), measured.tolist()).intervals.items():
            held[name] += low <= true[name] <= high
    # Fewer than 51 of 60 would come once in 1,000 times.
    assert min(held.values()) >= 51


def test_as_many_points_as_parameters_say_nothing_of_how_sure_that_is() -> None:
    found = fit(AMDAHL, [1, 4], [10, 30])
    assert found.at(4) == pytest.approx(30)
    assert found.intervals == {} and found.residual_standard_error is None
    with pytest.raises(ValueError, match="needs as many sizes: 2"):
        fit(USL, [1, 4, 4], [10, 30, 31])


@pytest.mark.parametrize("law", LAWS)
def test_a_size_that_was_not_measured_is_predicted_exactly_from_exact_data(law: str) -> None:
    n = numpy.array([1, 2, 3, 5, 9, 17], dtype=float)
    kappa = 0.002 if law == USL else 0.0
    found = fit(law, n.tolist(), throughput(law, n, 0.05, kappa, 70).tolist(), [40, 3])
    for each, size in zip(found.extrapolated, (40.0, 3.0), strict=True):
        truth = throughput(law, numpy.array([size]), 0.05, kappa, 70)[0]
        assert each.size == size and each.throughput == pytest.approx(truth, rel=1e-4)
        assert each.interval == pytest.approx((truth, truth), rel=1e-4)


def test_prediction_intervals_hold_a_further_measurement_about_as_often_as_they_say() -> None:
    chance = numpy.random.default_rng(8)
    n = numpy.array([1, 2, 4, 6, 8, 12, 16, 24], dtype=float)
    asked = numpy.array([12.0, 48.0])
    held = numpy.zeros(2)
    for _ in range(60):
        measured = throughput(AMDAHL, n, 0.05, 0, 100) + chance.normal(size=len(n)) * 5
        found = fit(AMDAHL, n.tolist(), measured.tolist(), asked.tolist()).extrapolated
        further = throughput(AMDAHL, asked, 0.05, 0, 100) + chance.normal(size=2) * 5
        for index, each in enumerate(found):
            assert each.interval is not None
            held[index] += each.interval[0] <= further[index] <= each.interval[1]
        # Further out is less sure.
        (near, far) = ((each.interval or (0, 0)) for each in found)
        assert far[1] - far[0] > near[1] - near[0]
    # Fewer than 51 of 60 would come once in 1,000 times.
    assert held.min() >= 51


def test_nobody_is_sure_of_an_extrapolation_from_as_many_points_as_parameters() -> None:
    [found] = fit(AMDAHL, [1, 4], [10, 30], [8]).extrapolated
    assert found.interval is None and found.throughput > 30


# --- the command ------------------------------------------------------------------------


def file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "measured.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_command_fits_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"x, {n} , {x}" for n, x in zip(RAYTRACER_N, RAYTRACER_X, strict=True)]
    path = file(tmp_path, "\ufeffnote,N,Throughput\n\n" + "\n".join(rows) + "\n")
    assert cli.main(["fit", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "usl" and found["points"] == 11
    assert found["kappa"] == 0 and found["peak_n"] is None and found["peak_throughput"] is None
    assert found["limit_throughput"] == pytest.approx(378.2, abs=0.1)
    assert found["ci95"]["kappa"][0] == 0 and len(found["residuals"]) == 11
    assert cli.main(["fit", path, "--model", "gustafson"]) == 0
    printed = capsys.readouterr().out
    assert "gustafson" in printed and "Residual standard error" in printed
    assert "kappa" not in printed


@pytest.mark.parametrize(
    ("text", "options", "place", "words"),
    [
        ("n,throughput\n1,2\n2,x\n", [], ":3", "'x' is no number"),
        ("n,throughput\n1,2\n2\n", [], ":3", "'' is no number"),
        ("n,throughput\n1,inf\n", [], ":2", "not finite"),
        ("n,through\n1,2\n", [], ":1", "did you mean 'through'"),
        ("n,throughput\n", [], "", "no line below"),
        ("", [], "", "is empty"),
        ('n,throughput\n1,"2\n', [], ":2", "malformed CSV"),
        ("n,throughput\n0,2\n", [], "", "n 0 must be above 0"),
        ("n,throughput\n1,-2\n", [], "", "throughput -2 must be 0 or more"),
        ("n,throughput\n1,0\n2,0\n3,0\n", [], "", "every throughput is 0"),
        ("n,throughput\n1,2\n2,3\n", [], "", "needs as many sizes: 2"),
        ("n,throughput\n1,2\n2,3\n", ["--model", "asl"], "--model", "did you mean 'usl'"),
    ],
)
def test_bad_input(
    tmp_path: Path,
    text: str,
    options: list[str],
    place: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = file(tmp_path, text)
    assert cli.main(["fit", path, *options, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["path"] == (place if place.startswith("--") else path + place)
    assert words in error["message"] + (error["hint"] or "")


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", str(tmp_path / "none.csv")]) == 2
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "binary.csv").write_bytes(b"n,throughput\n\xff\xfe,1\n")
    assert cli.main(["fit", str(tmp_path / "binary.csv")]) == 2
    assert "is no UTF-8 text" in capsys.readouterr().err


# --- stored runs ------------------------------------------------------------------------

STATION = """
experiment: cores
runtime: sim
system:
  protocol: {name: unreplicated}
  node: {cpu: {read: {name: exponential, mean: 1ms}}}
workload: {name: ycsb, mix: c, keys: 100}
arrival: {name: closed, sessions: 40}
warmup: 200ms
duration: 1s
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(config, results) of a sweep over cores under closed load."""
    folder = tmp_path_factory.mktemp("swept")
    config = folder / "config.yaml"
    config.write_text(STATION, encoding="utf-8")
    results = folder / "results"
    axis = "system.node.cores=1,2,4,8"
    assert cli.main(["sweep", str(config), axis, "--results", str(results), "--json"]) == 0
    return config, results


def test_the_command_fits_a_sweep(
    swept: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """c servers of 1,000 operations/s that are never idle do 1,000 c."""
    _, results = swept
    capsys.readouterr()
    asked = ["fit", "cores", "--over", "system.node.cores", "--results", str(results)]
    assert cli.main([*asked, "--at", "6,16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["over"] == "system.node.cores" and found["sizes"] == [1, 2, 4, 8]
    assert found["lambda"] == pytest.approx(1000, rel=0.1)
    assert found["kappa"] == pytest.approx(0, abs=5e-3)
    assert len(found["residuals"]) == 4
    six, sixteen = found["extrapolation"]
    assert six["n"] == 6 and six["ci95"][0] < 6000 < six["ci95"][1]
    assert six["throughput"] == pytest.approx(6000, rel=0.1)
    assert sixteen["ci95"][1] - sixteen["ci95"][0] > six["ci95"][1] - six["ci95"][0]
    assert cli.main([*asked, "--model", "amdahl", "--at", "6"]) == 0
    assert "predicted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "options", "place", "words"),
    [
        ("cores", [], "--over", "nobody knows what n is"),
        ("cores", ["--over", "system.node.core"], "system.node.core", "did you mean"),
        ("cores", ["--over", "arrival.name"], "arrival.name", "no number above 0"),
        ("core", ["--over", "system.node.cores"], None, "no such run"),
        ("cores", ["--over", "arrival.sessions"], "--where", "differ in more than"),
        ("cores", ["--over", "system.node.cores", "--at", "8,x"], "--at", "no list of sizes"),
        ("cores", ["--over", "system.node.cores", "--at", "0"], "--at", "no list of sizes"),
    ],
)
def test_bad_questions_about_stored_runs(
    swept: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    source: str,
    options: list[str],
    place: str | None,
    words: str,
) -> None:
    _, results = swept
    capsys.readouterr()
    assert cli.main(["fit", source, *options, "--results", str(results), "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["path"] == place and words in f"{error['message']} {error['hint']}"


def test_what_served_all_that_was_offered_says_nothing_of_what_it_could(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    text = STATION.replace("{name: closed, sessions: 40}", "{name: poisson, rate: 200/s}")
    config.write_text(text, encoding="utf-8")
    place = ["--results", str(tmp_path / "results")]
    assert cli.main(["sweep", str(config), "system.node.cores=1,2,4", *place, "--json"]) == 0
    capsys.readouterr()
    assert cli.main(["fit", "cores", "--over", "system.node.cores", *place, "--json"]) == 2
    assert "served what was offered" in json.loads(capsys.readouterr().out)["error"]["message"]
