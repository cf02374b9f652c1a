"""``archbench cache``: its answer, table, picture and refusals, and parity with the policies."""

from __future__ import annotations

import io
import json
import os
import random
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from made_traces import records
from rich.console import Console

from orchestrator import _cache_question as question
from orchestrator import _cache_terminal, cli, miss_ratio
from orchestrator.core.load import CachePolicy
from orchestrator.core.parameters import Capacity, parse_capacity
from orchestrator.core.registry import Family, plugin, plugins
from orchestrator.errors import ArchbenchError, EnvironmentFailure
from orchestrator.report.figures.miss_ratio import best
from orchestrator.report.figures.miss_ratio import miss_ratio as drawn_miss_ratio
from orchestrator.workloads.trace import Columns, TraceParams, read_requests

KEYS = [
    "requests",
    "objects",
    "bytes",
    "compulsory_miss_ratio",
    "left_out",
    "curves",
    "figure",
    "seconds",
]
CURVE_KEYS = ["policy", "size", "unit", "misses", "miss_ratio", "byte_miss_ratio", "evictions"]
CACHES = list(plugins(Family.CACHE))

Ask = Callable[..., Any]


def rows(count: int) -> list[tuple[int, str, int, str]]:
    """Time in µs, key, size, operation: few hot keys, many cold ones, a size for each key."""
    chance = random.Random("rows")
    made = []
    for at in range(count):
        key = int(chance.paretovariate(0.7)) % 60
        made.append((at * 10, f"k{key}", 100 + key * 7, chance.choice(["read", "write"])))
    return made


ROWS = rows(1500)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a trace of ROWS in it."""
    monkeypatch.chdir(tmp_path)
    text = "time,name,bytes,op\n" + "".join(",".join(map(str, row)) + "\n" for row in ROWS)
    (tmp_path / "t.csv").write_text(text)
    return tmp_path


COLUMNS = ("--columns", "key=name,size=bytes")


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """What ``cache --json`` says; its exit code must be ``code``."""

    def give(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert cli.main(["cache", *arguments, "--json"]) == code
        printed = capsys.readouterr().out
        assert printed.count("\n") == 1
        return json.loads(printed)

    return give


def direct(name: str, size: str) -> tuple[int, int, int]:
    """Misses, missed bytes and evictions of a policy that is used by itself."""
    chosen = plugin(Family.CACHE, name)
    cache: CachePolicy = chosen.implementation(chosen.params(size=parse_capacity(size)))
    missed = [
        size
        for at, key, size, _ in ROWS
        if not cache.access(key.encode(), size, (at - ROWS[0][0]) * 1000)
    ]
    return len(missed), sum(missed), cache.evictions


@pytest.mark.parametrize("name", CACHES)
def test_misses_are_those_of_the_policy_itself(ask: Ask, name: str) -> None:
    found = ask("t.csv", "--policy", name, "--size", "3,20,1KiB,9kB", *COLUMNS)
    total = sum(size for _, _, size, _ in ROWS)
    assert len(found["curves"]) == 4
    for curve, size in zip(found["curves"], ["3", "20", "1KiB", "9kB"], strict=True):
        misses, missed_bytes, evictions = direct(name, size)
        assert curve["misses"] == misses
        assert curve["miss_ratio"] == misses / len(ROWS)
        assert curve["byte_miss_ratio"] == missed_bytes / total
        assert curve["evictions"] == evictions


def test_the_object(ask: Ask, home: Path) -> None:
    found = ask("t.csv", "--policy", "lru,fifo", "--size", "2KiB,5,1000,5", *COLUMNS)
    assert list(found) == KEYS
    assert all(list(curve) == CURVE_KEYS for curve in found["curves"])
    sizes = [(curve["policy"], curve["size"], curve["unit"]) for curve in found["curves"]]
    of_each = [(5, "entries"), (1000, "entries"), (2048, "bytes")]
    assert sizes == [(name, *size) for name in ("lru", "fifo") for size in of_each]
    objects = {key: size for _, key, size, _ in ROWS}
    assert (found["requests"], found["objects"]) == (len(ROWS), len(objects))
    assert found["bytes"] == sum(objects.values())
    assert found["compulsory_miss_ratio"] == len(objects) / len(ROWS)
    assert [curve["misses"] for curve in found["curves"] if curve["size"] == 1000] == [
        len(objects)
    ] * 2
    assert (home / found["figure"]).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert found["figure"].startswith("results/reports/cache/t.csv-")


def test_the_same_question_goes_to_the_same_picture(ask: Ask) -> None:
    asked = ("t.csv", "--policy", "lru", *COLUMNS, "--results", "elsewhere")
    one, same = ask(*asked), ask(*asked)
    other = ask(*asked, "--limit", "100")
    assert one["figure"] == same["figure"] != other["figure"]
    assert one["figure"].startswith("elsewhere/")
    assert other["requests"] == 100


def test_the_table_marks_the_least(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    arguments = ["--policy", "lru,fifo", "--size", "5,1000", *COLUMNS, "--plot", "new/p.svg"]
    assert cli.main(["cache", "t.csv", *arguments]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    lru, fifo = (100 * direct(name, "5")[0] / len(ROWS) for name in ("lru", "fifo"))
    assert lines[0].startswith("1,500 requests, reads and writes alike, to ")
    assert lines[1].split() == ["miss", "ratio", "(%)", "lru", "fifo"]
    marks = ["*" if mine <= other else "" for mine, other in ((lru, fifo), (fifo, lru))]
    assert lines[3].split() == ["5", f"{lru:.2f}{marks[0]}", f"{fifo:.2f}{marks[1]}"]
    everything = f"{100 * direct('lru', '1000')[0] / len(ROWS):.2f}*"
    assert lines[4].split() == ["1,000", everything, everything]
    assert lines[-1].startswith("new/p.svg, ")
    assert printed.err == "reading t.csv\n4 passes over 1,500 requests\n"
    assert ElementTree.fromstring((home / "new/p.svg").read_text()).tag.endswith("svg")


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(64 << 20, "64MiB"), (1500, "1500B"), (207422310, "198 MiB"), (3 * 10**9, "2.79 GiB")],
)
def test_odd_bytes_are_rounded_for_reading(size_bytes: int, shown: str) -> None:
    out = Console(file=io.StringIO(), width=200)
    one = curve("lru", size_bytes, 50, "bytes")
    data = found_of([one]) | {"bytes": None, "figure": "f.png", "seconds": 1.0}
    _cache_terminal.show(out, data, "")
    assert isinstance(out.file, io.StringIO)
    assert f"\n{shown}  " in out.file.getvalue()


def test_every_format_is_read(ask: Ask, home: Path) -> None:
    (home / "t.oracleGeneral").write_bytes(records([(1, 7, 9, -1), (2, 7, 9, -1), (3, 8, 1, -1)]))
    found = ask("t.oracleGeneral", "--policy", "lru", "--size", "1,10B")
    assert [curve["misses"] for curve in found["curves"]] == [2, 2]
    (home / "m.log").write_text('1.000000 [0 a:1] "get" "k"\n1.000001 [0 a:1] "ping"\n' * 1)
    found = ask("m.log", "--policy", "lru", "--size", "1")
    assert (found["requests"], found["left_out"]) == (1, 1)
    (home / "t.txt").write_text("key\na\na\nb\n")
    found = ask("t.txt", "--policy", "lru", "--size", "1", "--format", "csv")
    assert found["curves"][0]["misses"] == 2
    assert (found["bytes"], found["curves"][0]["byte_miss_ratio"]) == (None, None)


def test_operations_are_read_only_where_their_column_is_named(ask: Ask, home: Path) -> None:
    (home / "o.csv").write_text("key,op\na,fly\n")
    assert ask("o.csv", "--policy", "lru", "--size", "1")["requests"] == 1
    error = ask("o.csv", "--policy", "lru", "--size", "1", "--columns", "op=op", code=2)["error"]
    assert error["path"] == "o.csv:2"


def test_parameters_make_a_policy_of_their_own(ask: Ask) -> None:
    found = ask("t.csv", "--policy", "lru:warm=false,fifo", "--policy", "lru", *COLUMNS)
    labels = list(dict.fromkeys(curve["policy"] for curve in found["curves"]))
    assert labels == ["lru:warm=false", "fifo", "lru"]
    misses = {
        label: [curve["misses"] for curve in found["curves"] if curve["policy"] == label]
        for label in labels
    }
    assert misses["lru:warm=false"] == misses["lru"]


def test_a_policy_takes_the_parameters_that_follow_it() -> None:
    (made,) = question.policies(["lru:warm=false,warm=true"])
    assert made.label == "lru:warm=false,warm=true"
    passed = made.at(Capacity(64, in_bytes=True))
    assert passed.capacity == Capacity(64, in_bytes=True)
    assert passed.cache.params.warm is True


# --- sizes ------------------------------------------------------------------------------


def test_shares_are_of_the_objects_or_of_their_bytes(home: Path) -> None:
    requests = read_requests(TraceParams("t.csv", Columns("name", size="bytes")))
    objects = {key: size for _, key, size, _ in ROWS}
    total = sum(objects.values())
    assert question.object_bytes(requests) == total
    asked = question.sizes("50%,100%,0.001%,100%B,10%B")
    found = question.capacities(asked, requests, total)
    assert found == [
        Capacity(1, False),
        Capacity(len(objects) // 2, False),
        Capacity(len(objects), False),
        Capacity(total // 10, True),
        Capacity(total, True),
    ]


def test_an_object_weighs_its_largest_size(home: Path) -> None:
    (home / "s.csv").write_text("key,size\na,5\na,9\nb,1\na,2\n")
    assert question.object_bytes(read_requests(TraceParams("s.csv"))) == 10


def test_what_a_size_may_be() -> None:
    found = question.sizes("10, 1KiB,2.5%, 1 %B")
    assert found == [
        Capacity(10, False),
        Capacity(1024, True),
        question.Share("2.5%", Fraction(1, 40), False),
        question.Share("1 %B", Fraction(1, 100), True),
    ]


# --- processes --------------------------------------------------------------------------


def test_the_number_of_processes_changes_nothing() -> None:
    requests = read_requests(TraceParams("t.csv", Columns("name", size="bytes")))
    capacities = [Capacity(7, False), Capacity(900, True)]
    passes = [each.at(size) for each in question.policies(["lru,fifo"]) for size in capacities]
    heard: list[int] = []
    here = miss_ratio.miss_ratios(requests, passes, processes=1)
    assert miss_ratio.miss_ratios(requests, passes, processes=2, told=heard.append) == here
    assert heard == [1, 2, 3, 4]
    expected = [direct(name, size) for name in ("lru", "fifo") for size in ("7", "900B")]
    assert [(out.misses, out.missed_bytes, out.evictions) for out in here] == expected


def test_a_lost_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)  # they end: this is not their parent
    requests = read_requests(TraceParams("t.csv", Columns("name")))
    passes = [each.at(Capacity(7, False)) for each in question.policies(["lru,fifo"])]
    with pytest.raises(EnvironmentFailure, match="a process that simulated a cache was lost"):
        miss_ratio.miss_ratios(requests, passes, processes=2)


class Terminal(io.StringIO):
    """What a person looks at."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with _cache_terminal.progress(4, 1000) as told:
        told(3)
    assert "4 passes over 1,000 requests" in terminal.getvalue()
    assert "3/4" in terminal.getvalue()


# --- the picture ------------------------------------------------------------------------


def curve(policy: str, size: int, misses: int, unit: str = "entries") -> dict[str, Any]:
    ratio = misses / 100
    return {"policy": policy, "size": size, "unit": unit, "misses": misses, "miss_ratio": ratio}


def found_of(curves: list[dict[str, Any]]) -> dict[str, Any]:
    return {"requests": 100, "objects": 10, "compulsory_miss_ratio": 0.1, "curves": curves}


@pytest.mark.parametrize(
    ("curves", "title"),
    [
        ([curve("lru", 1, 50)], "Miss ratio of lru"),
        ([curve("a", 1, 50), curve("b", 1, 40)], "b misses least at every size"),
        (
            [curve("a", 1, 50), curve("a", 9, 30), curve("b", 1, 40), curve("b", 9, 30)],
            "b misses least at every size",
        ),
        ([curve("a", 1, 50), curve("b", 1, 50)], "a and b miss least at every size"),
        (
            [curve(name, 1, 50, unit) for name in "abcd" for unit in ("entries", "bytes")],
            "Miss ratio of each policy",
        ),
    ],
)
def test_the_title_says_what_was_found(curves: list[dict[str, Any]], title: str) -> None:
    drawn = drawn_miss_ratio("t<&>.csv", found_of(curves))
    assert drawn.title == title
    texts = "".join(ElementTree.fromstring(drawn.svg).itertext())
    assert "t<&>.csv: 100 requests to 10 objects" in texts
    units = {each["unit"] for each in curves}
    assert ("Cache size (entries)" in texts) == ("entries" in units)
    assert ("Cache size (B)" in texts) == ("bytes" in units)


def test_best_of_each_size() -> None:
    curves = [curve("a", 1, 50), curve("a", 9, 30), curve("b", 1, 40), curve("b", 9, 30)]
    assert best(curves) == [{"b"}, {"a", "b"}]


# --- refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "path", "words"),
    [
        (["t.csv"], None, "Missing option '--policy'"),
        (["t.csv", "--policy", "lur"], "--policy", "unknown cache 'lur' (did you mean 'lru'?)"),
        (["t.csv", "--policy", "lru,"], "--policy", "unknown cache ''"),
        (["t.csv", "--policy", "warm=no"], "--policy", "'warm=no' belongs to no policy"),
        (["t.csv", "--policy", "lru:wram=no"], "lru.wram", "did you mean 'warm'?"),
        (["t.csv", "--policy", "lru:warm"], None, "malformed override 'warm'"),
        (["t.csv", "--policy", "lru:warm=7"], "lru.warm", "expected true or false, got 7"),
        (["t.csv", "--policy", "lru:size=7"], "--policy", "give sizes by --size"),
        (["t.csv", "--policy", "lru", "--size", "0"], "--size", "'0' must be above 0"),
        (["t.csv", "--policy", "lru", "--size", "0B"], "--size", "must be above 0"),
        (["t.csv", "--policy", "lru", "--size", "-3"], "--size", "'-3'"),
        (["t.csv", "--policy", "lru", "--size", "5,"], "--size", "'' is not a quantity"),
        (["t.csv", "--policy", "lru", "--size", "5bananas"], "--size", "'5bananas' has no unit"),
        (["t.csv", "--policy", "lru", "--size", "0%"], "--size", "'0%' is no size"),
        (["t.csv", "--policy", "lru", "--size", "101%"], "--size", "above 0 and up to 100"),
        (["t.csv", "--policy", "lru", "--size", "x%"], "--size", "'x%' is no size"),
        (["t.csv", "--policy", "lru", "--size", "1/0%"], "--size", "'1/0%' is no size"),
        (["t.csv", "--policy", "lru", "--size", "1%MiB"], "--size", "'1%MiB' is no size"),
        (["t.csv", "--policy", "lru", "--limit", "0"], "--limit", "0 is no number of requests"),
        (["t.csv", "--policy", "lru", "--format", "cvs"], "--format", "did you mean 'csv'?"),
        (["t.csv", "--policy", "lru", "--time-unit", "h"], "--time-unit", "unknown value 'h'"),
        (["t.csv", "--policy", "lru", "--columns", "kee=a"], "--columns", "did you mean 'key'?"),
        (["t.csv", "--policy", "lru", "--columns", "key"], "--columns", "write ROLE=NAME"),
        (["t.csv", "--policy", "lru", "--columns", "key=a,key=b"], "--columns", "given twice"),
        (["t.csv", "--policy", "lru", "--plot", "p.jpg"], "--plot", "write .png or .svg"),
        (["t.log", "--policy", "lru", "--columns", "key=a"], "--columns", "no meaning for redis"),
        (["t.log", "--policy", "lru", "--time-unit", "s"], "--time-unit", "no meaning for redis"),
        (["gone.csv", "--policy", "lru"], "gone.csv", "cannot read the trace file: No such file"),
        (["t.csv", "--policy", "lru"], "t.csv:1", "no column 'key' for columns.key"),
        ([".", "--policy", "lru"], ".", "cannot read the trace file"),
        (
            ["t.csv", "--policy", "lru", "--size", "99B", *COLUMNS],
            "--size",
            "no object of the trace fits into 99B (the smallest has 100 bytes)",
        ),
        (
            ["t.csv", "--policy", "lru", "--size", "1MiB", "--columns", "key=name"],
            "--size",
            "1MiB needs sizes, and the trace has none (name their column",
        ),
        (
            ["t.csv", "--policy", "lru", "--size", "1%B", "--columns", "key=name"],
            "--size",
            "1%B needs sizes",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(
    ask: Ask, home: Path, arguments: list[str], path: str | None, words: str
) -> None:
    before = sorted(home.rglob("*"))
    error = ask(*arguments, code=2)["error"]
    assert words in f"{error['message']} ({error['hint']})"
    assert error["path"] == path
    assert sorted(home.rglob("*")) == before


def test_a_folder_of_results_that_is_a_file_is_told_before_the_work(ask: Ask, home: Path) -> None:
    (home / "results").write_text("mine")
    error = ask("t.csv", "--policy", "lru", *COLUMNS, code=2)["error"]
    assert "is a file" in error["message"]
    assert (home / "results").read_text() == "mine"


def test_questions_are_refused_without_a_file_to_read() -> None:
    with pytest.raises(ArchbenchError, match="has no meaning for oracle_general"):
        question.trace_params(
            "w.oracleGeneral.zst", columns="key=a", form="auto", time_unit=None, limit=None
        )
