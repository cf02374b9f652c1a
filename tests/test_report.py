"""The report: figures, page and files, from made-up views."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy
import pytest
from made_views import BROKEN_RUNS, EMPTY, hostile_view, run_view, study_view

from orchestrator.report.figures import Picture, inline_svg, run_figures, study_figures
from orchestrator.report.figures.latency import latency, percentiles
from orchestrator.report.figures.nodes import utilisation
from orchestrator.report.figures.series import series
from orchestrator.report.model import (
    StudyView,
)
from orchestrator.report.page import run_page, study_page, write

FIGURES = [
    "optimisation-history",
    "throughput-latency",
    "parameter-slices",
    "parameter-importance",
    "latency-distribution",
    "time-series",
    "node-utilisation",
]


@pytest.fixture(scope="module")
def study() -> tuple[StudyView, list[Picture], str]:
    view = study_view()
    figures = study_figures(view)
    return view, figures, study_page(view, figures)


class Reader(HTMLParser):
    """Collects tags with their attributes, and the text outside style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.inside:
            del self.inside[len(self.inside) - 1 - self.inside[::-1].index(tag) :]

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.inside):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def test_page_says_the_answer_first(study: tuple[StudyView, list[Picture], str]) -> None:
    text = Reader(study[2]).text
    answer = text.index("Run replicas = 5, cache.size = 8MiB and protocol = raft.")
    assert answer < text.index("1.37× the default's 3,000 ops/s") < text.index("Best beside")
    for part in (
        "95 % interval 4,018 to 4,182 ops/s",
        "within the SLO (p99 latency 21 ms, bound 45 ms)",
        "binding resource is node.cpu at 97 %",
        "16 trials searched system.replicas (1 to 7)",
        "12 feasible, 2 infeasible, 1 pruned and 1 failed",
        "More replicas serve more reads.",
        "archbench tune configs/made-up.yaml",
        "Simulated, virtual time",
    ):
        assert part in text, part


def test_page_needs_nothing_else(study: tuple[StudyView, list[Picture], str]) -> None:
    page = study[2]
    assert not re.search(r"https?://|//cdn|@import|url\((?!#)", page)
    tags = Reader(page).tags
    for tag, attributes in tags:
        assert tag not in ("link", "img", "iframe", "object", "image")
        for key in ("src", "href", "xlink:href", "action", "data"):
            assert attributes.get(key, "#").startswith("#"), (tag, attributes)
    policy = next(a["content"] for t, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert any(tag == "meta" and a.get("name") == "viewport" for tag, a in tags)


def test_identifiers_are_unique_and_references_resolve(
    study: tuple[StudyView, list[Picture], str],
) -> None:
    page = study[2]
    identifiers = [a["id"] for _, a in Reader(page).tags if "id" in a]
    assert len(identifiers) == len(set(identifiers)) > 50
    references = re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", page)
    assert references
    assert {first or second for first, second in references} <= set(identifiers)


def test_figure_files(study: tuple[StudyView, list[Picture], str], tmp_path: Path) -> None:
    _, figures, page = study
    assert [drawn.name for drawn in figures] == FIGURES
    assert not any(drawn.empty for drawn in figures)
    report, paths = write(tmp_path / "report", page, figures)
    assert report.read_text(encoding="utf-8") == page
    found = sorted(path.name for path in (tmp_path / "report" / "figures").iterdir())
    assert found == sorted(path.name for path in paths)
    assert found == sorted(f"{name}.{ending}" for name in FIGURES for ending in ("png", "svg"))
    for path in paths:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        else:
            content = path.read_bytes()
            assert content.startswith(b"\x89PNG\r\n\x1a\n")
            width, height = struct.unpack(">II", content[16:24])
            assert width > 900
            assert height > 200


def test_write_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "old", [])

    def broken(_: object, __: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("orchestrator.report.page.os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, "new", [])
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.html"]


def test_titles_name_simulated_figures(study: tuple[StudyView, list[Picture], str]) -> None:
    assert all(drawn.title.endswith("(simulated)") for drawn in study[1])
    real = run_view(runtime="ray", clock="real")
    assert not any("simulated" in drawn.title for drawn in run_figures(real))
    mixed = latency(run_view(), real, {})
    assert mixed.title.endswith("(partly simulated)")
    assert "best (sim)" in mixed.svg


def test_hostile_text_stays_text() -> None:
    view = hostile_view()
    assert view.best_run is not None
    figures = study_figures(view)
    alone = run_figures(view.best_run)
    for drawn in [*figures, *alone]:
        assert "<script" not in drawn.svg
        assert "<script" not in inline_svg(drawn)
        ElementTree.fromstring(drawn.svg)
        assert drawn.title.endswith("(simulated)"), "a long title must not hide the mark"
    for page in (study_page(view, figures), run_page(view.best_run, alone)):
        page.encode()
        assert [tag for tag, _ in Reader(page).tags].count("script") == 1
        assert "alert(1)" in Reader(page).text
        assert "\x00" not in page
        assert "\x1b" not in page
    # Text in a figure, dollar signs included, is set as it is and not as mathematics.
    texts = "".join(ElementTree.fromstring(figures[6].svg).itertext())
    assert "<script>" in texts


@pytest.mark.parametrize("name", EMPTY)
def test_edge_cases_are_told_and_drawn(name: str) -> None:
    view = EMPTY[name]
    figures = study_figures(view)
    assert [drawn.name for drawn in figures] == FIGURES
    for drawn in figures:
        ElementTree.fromstring(drawn.svg)
    text = Reader(study_page(view, figures)).text
    assert ("Not drawn" in text) == any(drawn.empty for drawn in figures)
    for word in ("nan", "None", "inf "):
        assert not re.search(rf"\b{word}\b", text), word


@pytest.mark.parametrize("name", BROKEN_RUNS)
def test_broken_runs_are_told_and_drawn(name: str) -> None:
    view = dataclasses.replace(run_view(), **BROKEN_RUNS[name])
    figures = run_figures(view)
    for drawn in figures:
        ElementTree.fromstring(drawn.svg)
    text = Reader(run_page(view, figures)).text
    assert ("Not drawn" in text) == any(drawn.empty for drawn in figures)
    assert not re.search(r"\b(nan|None)\b", text)


def test_trials_table_is_complete_and_sortable(
    study: tuple[StudyView, list[Picture], str],
) -> None:
    view, _, page = study
    table = page[page.index("<table data-sortable>") :]
    table = table[: table.index("</table>")]
    assert table.count("<tr") == len(view.trials) + 1
    assert table.count("<button") == 11
    assert 'data-sort="4100.0"' in table
    assert 'class="best"' in table
    assert 'class="default"' in table
    assert "needs more memory" in table


def test_nodes_are_named_by_index_and_role() -> None:
    view = run_view()
    indices = [int(str(name)[1:]) for name in view.nodes["node"]]
    roles = ["leader" if index == 2 else None for index in indices]
    named = {**view.nodes, "node": indices, "role": roles}
    svg = utilisation(dataclasses.replace(view, nodes=named)).svg
    texts = [text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip()]
    assert [text for text in texts if re.match(r"n\d", text)][:3] == ["n0", "n1", "n2 leader"]


def test_the_nodes_figure_says_how_even_the_load_was() -> None:
    view = run_view()
    jain = [0.5] * 20 + [None] + [0.9] * 8 + [0.8]
    told = utilisation(dataclasses.replace(view, intervals={**view.intervals, "jain": jain}))
    phases = [str(phase) for phase in view.intervals["phase"]]
    known = [each for each, phase in zip(jain, phases, strict=True) if phase == "run" and each]
    assert f"was {numpy.median(known):.3f} in the middle and {min(known):.3f}" in told.caption
    assert "Jain" not in utilisation(view).caption


def test_run_page(tmp_path: Path) -> None:
    view = run_view(valid=False, invalid_reasons=["generator lag"], runtime="ray", clock="real")
    figures = run_figures(view)
    page = run_page(view, figures)
    text = Reader(page).text
    assert "This run may not be believed." in text
    assert "Invalid: generator lag." in text
    assert "Simulated" not in text
    assert "restart" in text
    report, paths = write(tmp_path, page, figures)
    assert report.exists()
    assert len(paths) == 6


def digest(view: StudyView) -> str:
    figures = study_figures(view)
    files = b"".join(drawn.svg.encode() + drawn.png for drawn in figures)
    return hashlib.sha256(study_page(view, figures).encode() + files).hexdigest()


_DIGEST = """
import sys
sys.path[:0] = sys.argv[1:]
from made_views import study_view
from test_report import digest
print(digest(study_view(3)))
"""


def test_output_is_the_same_in_every_process() -> None:
    home = Path(__file__).parent
    made = subprocess.run(
        [sys.executable, "-c", _DIGEST, str(home), str(home.parent)],
        env={**os.environ, "PYTHONHASHSEED": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout.strip() == digest(study_view(3))


def test_a_run_without_lost_operations_is_drawn_the_same_size() -> None:
    view = run_view()
    calm = dataclasses.replace(view, intervals={**view.intervals, "unknown": [0] * 30}, events=())
    drawn = series(calm)
    frames = re.findall(r'<path d="M ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+) ', drawn.svg)
    heights = [abs(float(frame[1]) - float(frame[3])) for frame in frames]
    assert max(heights) > 60
    assert "lost" not in drawn.svg


def test_drawing_leaves_no_global_state() -> None:
    before = dict(matplotlib.rcParams)
    assert not series(run_view()).empty
    from matplotlib import pyplot

    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def quantile(x: Sequence[float], y: Sequence[float], share: float) -> float:
    """Reads the step curve at a percentile as a person would."""
    at = 1 / (1 - share)
    return float(next(value for edge, value in zip(x, y, strict=True) if edge >= at - 1e-9))


def test_percentile_curve_reads_back_the_quantiles() -> None:
    x, y = percentiles([1.0, 2.0, 3.0, 4.0], [50, 0, 40, 10])
    assert list(y) == [1.0, 1.0, 3.0, 4.0]
    assert x[0] == 1.0
    assert numpy.all(numpy.diff(x) > 0)
    for share, value in ((0.25, 1.0), (0.5, 1.0), (0.6, 3.0), (0.9, 3.0), (0.95, 4.0)):
        assert quantile(list(x), list(y), share) == value
