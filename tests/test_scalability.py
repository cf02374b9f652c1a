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
