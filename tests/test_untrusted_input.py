"""Configurations, SQL and texts that want to do more than they may, given to the command line."""

from __future__ import annotations

import json
import re
import stat
import struct
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from made_views import hostile_view, study_view
from small_runs import YAML

from orchestrator import cli
from orchestrator.errors import ConfigError
from orchestrator.report.figures import run_figures, study_figures
from orchestrator.report.page import run_page, study_page
from orchestrator.store.query import query, relation
from orchestrator.tune import write_report

# --- YAML -------------------------------------------------------------------------------

EXECUTED = [
    '!!python/object/apply:os.system ["touch {mark}"]',
    '!!python/object/new:os.system ["touch {mark}"]',
    "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{mark}']]",
    "!!python/name:os.system",
    "!!python/module:os",
    "${{oc.env:HOME}}/${{oc.decode:'!!python/object/apply:os.getcwd []'}}",
]


@pytest.mark.parametrize("value", EXECUTED)
def test_yaml_executes_nothing(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mark = tmp_path / "executed"
    text = value.format(mark=mark)
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(YAML, encoding="utf-8")
    bad.write_text(f"{YAML}seed: {text}\n", encoding="utf-8")
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(f"protocol: raft\nseed: {text}\n", encoding="utf-8")
    for arguments in (
        ["run", str(bad)],
        ["show", str(bad)],
        ["run", str(good), f"seed={text}"],
        ["sweep", str(good), f"seed={text}"],
        ["tune", str(bad)],
        ["fuzz", "raft", "--scenario", str(scenario)],
    ):
        assert cli.main([*arguments, "--json"]) == 2, arguments
        assert "error" in json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bad.yaml",
        "good.yaml",
        "scenario.yaml",
    ]


@pytest.mark.parametrize(
    "value",
    [
        "${{oc.env:{name}}}",
        "x-${{oc.env:{name},none}}",
        "${{oc.decode:${{oc.env:{name}}}}}",
        "${{${{experiment}}:{name}}}",
        "${{ oc.env : {name} }}",
    ],
)
def test_a_configuration_does_not_read_the_environment(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHBENCH_TEST", "open sesame")
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    text = value.format(name="ARCHBENCH_TEST")
    good.write_text(YAML, encoding="utf-8")
    bad.write_text(YAML.replace("small", json.dumps(text), 1), encoding="utf-8")
    assert text in bad.read_text(encoding="utf-8")
    for arguments in (["show", str(bad)], ["show", str(good), f"experiment={text}"]):
        assert cli.main([*arguments, "--json"]) == 2
        said = capsys.readouterr().out
        assert "open sesame" not in said
        assert json.loads(said)["error"]["path"] == "experiment"


def test_numbers_without_end_and_aliases_without_end_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(YAML, encoding="utf-8")
    bad.write_text(f"{YAML}seed: {'9' * 5000}\n", encoding="utf-8")
    laughs = tmp_path / "laughs.yaml"
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    laughs.write_text("\n".join(lines), encoding="utf-8")
    for arguments in (
        ["show", str(bad)],
        ["show", str(good), f"seed={'9' * 5000}"],
        ["show", str(laughs)],
        ["fuzz", "raft", "--scenario", str(laughs)],
    ):
        assert cli.main([*arguments, "--json"]) == 2, arguments
        assert "error" in json.loads(capsys.readouterr().out)


# --- SQL --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results with one run."""
    folder = tmp_path_factory.mktemp("stored")
    config = folder / "small.yaml"
    config.write_text(YAML, encoding="utf-8")
    assert cli.main(["run", str(config), "--results", str(folder / "results"), "--json"]) == 0
    return folder / "results"


@pytest.mark.parametrize(
    "sql",
    [
        "COPY runs TO '{out}'",
        "COPY (SELECT 1) TO '{out}' (FORMAT csv)",
        "ATTACH '{out}' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "DROP VIEW runs",
        "DROP TABLE runs",
        "INSERT INTO runs SELECT * FROM runs",
        "UPDATE runs SET seed = 1",
        "CREATE TABLE t AS SELECT 1",
        "SELECT 1; COPY runs TO '{out}'",
        "SET enable_external_access = true",
        "PRAGMA database_list; EXPORT DATABASE '{out}'",
    ],
)
def test_queries_touch_nothing(
    sql: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    statement = sql.format(out=tmp_path / "out")
    assert cli.main(["query", statement, "--results", str(results), "--json"]) == 2
    told = capsys.readouterr()
    assert list(json.loads(told.out)) == ["error"]
    assert "root:" not in told.out + told.err
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == []


# --- reports ----------------------------------------------------------------------------

TEXTS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "</style><svg onload=alert(1)>",
    "]]><script>alert(1)</script><![CDATA[",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- alert(1) -->",
    "</title><base href=//x>",
]
_TAGS = {"script": 1, "img": 0, "base": 0, "iframe": 0, "object": 0, "embed": 0, "title": 1}


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def harmless(page: str) -> Tags:
    """The page, in which nothing stands that its template does not have."""
    read = Tags(page)
    outside = re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    counts = [tag for tag, _ in Tags(outside).tags]
    assert {tag: counts.count(tag) for tag in _TAGS} == _TAGS
    for tag, attributes in read.tags:
        for name, value in attributes:
            assert not name.startswith("on"), (tag, name)
            assert not (value or "").strip().lower().startswith("javascript:"), (tag, name)
    return read


@pytest.mark.parametrize("text", TEXTS)
def test_a_report_shows_texts_as_they_are(text: str) -> None:
    view = hostile_view(text)
    assert view.best_run is not None
    figures, alone = study_figures(view), run_figures(view.best_run)
    for page in (study_page(view, figures), run_page(view.best_run, alone)):
        assert text in harmless(page).text
    for drawn in [*figures, *alone]:
        for element in ElementTree.fromstring(drawn.svg).iter():
            assert not element.tag.lower().endswith(("script", "foreignobject", "img"))
            assert not any(name.lower().startswith("on") for name in element.attrib)
        assert b"\x89PNG" in drawn.png[:8]
        assert "alert" not in png_words(drawn.png), "nor in what describes the picture"


def png_words(png: bytes) -> str:
    """All texts of a PNG's chunks."""
    at, found = 8, ""
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        data = png[at + 8 : at + 8 + length]
        if kind in (b"tEXt", b"iTXt"):
            found += data.decode("latin-1")
        elif kind == b"zTXt":
            found += zlib.decompress(data.split(b"\0", 1)[1][1:]).decode("latin-1")
        at += 12 + length
    return found


@pytest.mark.parametrize(
    "name", ["</script><script>alert(1)</script>", "../outside", ".hidden", ""]
)
def test_a_name_that_is_a_path_or_a_tag_is_refused(name: str, tmp_path: Path) -> None:
    config = tmp_path / "named.yaml"
    config.write_text(YAML.replace("experiment: small", f"experiment: {json.dumps(name)}"), "utf-8")
    arguments = ["run", str(config), "--results", str(tmp_path / "results"), "--json"]
    assert cli.main(arguments) == 2
    assert list(tmp_path.iterdir()) == [config]


def test_what_a_query_spills_is_for_its_user_alone_and_is_removed(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with relation(results) as connection:
        (spill,) = tmp_path.iterdir()
        assert stat.S_IMODE(spill.stat().st_mode) == 0o700
        setting = connection.execute("SELECT current_setting('temp_directory')").fetchone()
        assert setting == (str(spill),)
    del connection
    query(results, "SELECT 1")
    assert not list(tmp_path.iterdir())


def test_a_study_of_foreign_results_names_no_other_folder(tmp_path: Path) -> None:
    view = replace(study_view(), study="../../elsewhere")
    with pytest.raises(ConfigError, match="cannot name results"):
        write_report(view, str(tmp_path / "deep" / "results"))
    assert not list(tmp_path.rglob("*.html"))
