"""The house rules that no linter knows, with a ratchet: a size on a list may only shrink."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from orchestrator.core.registry import Family, plugins

ROOT = Path(__file__).resolve().parent.parent

FUNCTION_LINES = 50
MODULE_LINES = 400

# What is longer today, with its size. Fix the code rather than add to these.
LONG_FUNCTIONS: dict[str, int] = {}
LONG_MODULES: dict[str, int] = {}

FAMILY_PACKAGES = {
    Family.ADMISSION: "admissions",
    Family.ARRIVAL: "arrivals",
    Family.AUTOSCALER: "autoscalers",
    Family.BALANCER: "balancers",
    Family.CACHE: "caches",
    Family.CHECKER: "checkers",
    Family.FAULT: "faults",
    Family.KEYS: "keys",
    Family.LIMIT: "limits",
    Family.PATTERN: "patterns",
    Family.PROTOCOL: "protocols",
    Family.QUEUE: "queues",
    Family.SHARDING: "shardings",
    Family.SYSTEM: "systems",
    Family.WORKLOAD: "workloads",
}

# Written in pieces, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")
INDEX_ADDRESS = re.compile(
    "pypi"
    r"\.org|python"
    r"hosted\.org|registry\."
    r"npmjs|deb\.debian"
    r"\.org"
    "|index"
    "-url|find"
    "-links"
)
ONE_MACHINES_PATH = re.compile(r"(?<![\w.$}~-])/(?:work|home|root|Users)/")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def python_files() -> list[Path]:
    """Every Python file of the project."""
    homes = ("orchestrator", "scripts", "tests")
    return sorted(path for home in homes for path in (ROOT / home).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def text_files() -> Iterator[tuple[str, str]]:
    """Every text file that belongs to the project: (path from the root, text)."""
    homes = (".ci", "configs", "docs", "orchestrator", "scripts", "tests")
    paths = [path for home in homes for path in (ROOT / home).rglob("*")]
    paths += [*ROOT.iterdir(), ROOT / "results" / "README.md"]
    for path in sorted(paths):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        try:
            yield name_of(path), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture


def name_of(path: Path) -> str:
    """The path from the root, the same on every system."""
    return path.relative_to(ROOT).as_posix()


def lines_of(function: Function) -> int:
    """Lines of a function from ``def`` to its end, its docstring not counted."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if has_docstring else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """All functions below a node with their dotted names, nested ones included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | Function):
            name = f"{prefix}{child.name}"
            if isinstance(child, Function):
                yield name, child
            yield from functions(child, f"{name}.")
        else:
            yield from functions(child, prefix)


def asserting_names(module: ast.Module) -> frozenset[str]:
    """Functions of a module that can fail: by themselves, or through one of their own."""
    own = {name.rpartition(".")[2]: function for name, function in functions(module)}
    asserting = {name for name, function in own.items() if asserts(function, frozenset())}
    while True:
        more = {n for n, f in own.items() if n not in asserting and asserts(f, asserting)}
        if not more:
            return frozenset(asserting)
        asserting |= more


def asserts(function: Function, helpers: set[str] | frozenset[str]) -> bool:
    """Whether it asserts, expects an exception, or calls something that does."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            if called in helpers or called in ("raises", "warns", "fail"):
                return True
            if called.startswith(("assert_", "expect_", "check_")):
                return True
    return False


def test_functions_stay_short() -> None:
    sizes = {
        f"{name_of(path)}::{name}": lines_of(function)
        for path in python_files()
        for name, function in functions(tree(path))
    }
    longer = {name: size for name, size in sizes.items() if size > FUNCTION_LINES}
    assert longer == LONG_FUNCTIONS, "split what is new, lower or remove what has shrunk"


def test_modules_stay_short() -> None:
    sizes = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in python_files()}
    longer = {name: size for name, size in sizes.items() if size > MODULE_LINES}
    assert longer == LONG_MODULES, "split what is new, lower or remove what has shrunk"


def test_length_leaves_out_the_docstring_only() -> None:
    outer = 'class A:\n  def f():\n    """One.\n\n    Two."""\n'
    module = ast.parse(outer + "    def g():\n      return 1\n")
    sizes = {name: lines_of(function) for name, function in functions(module)}
    assert sizes == {"A.f": 3, "A.f.g": 2}


def test_every_module_says_what_it_is() -> None:
    silent = [name_of(path) for path in python_files() if not ast.get_docstring(tree(path))]
    assert silent == []


def test_nothing_is_unfinished() -> None:
    found = [
        f"{name}:{number}"
        for name, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("pattern", [INDEX_ADDRESS, ONE_MACHINES_PATH], ids=["index", "path"])
def test_no_file_depends_on_one_place(pattern: re.Pattern[str]) -> None:
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_only_the_command_line_prints() -> None:
    package = ROOT / "orchestrator"
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in python_files()
        if path.is_relative_to(package) and path != package / "cli.py"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        if isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


def test_every_test_can_fail() -> None:
    idle = []
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        asserting = asserting_names(tree(path))
        names = [name.rpartition(".")[2] for name, _ in functions(tree(path))]
        tests = [name for name in names if name.startswith("test_")]
        # A stateful test of hypothesis has rules instead of test functions.
        idle += [f"{name_of(path)}::{name}" for name in tests if name not in asserting]
        idle += [name_of(path)] if not asserting else []
    assert idle == []


def test_a_test_without_an_assertion_is_found() -> None:
    module = ast.parse(
        "def helper():\n  assert x\n"
        "def through():\n  helper()\n"
        "def test_good():\n  through()\n"
        "def test_raises():\n  with pytest.raises(E):\n    f()\n"
        "def test_idle():\n  print(f())\n"
    )
    assert asserting_names(module) == {"helper", "through", "test_good", "test_raises"}


@pytest.mark.parametrize("family", FAMILY_PACKAGES, ids=lambda family: family.value)
def test_every_plugin_file_adds_a_plugin(family: Family) -> None:
    home = importlib.import_module(f"orchestrator.{FAMILY_PACKAGES[family]}")
    files = {found.name for found in pkgutil.iter_modules(home.__path__, f"{home.__name__}.")}
    public = {name for name in files if not name.rpartition(".")[2].startswith("_")}
    homes = {plugin.implementation.__module__ for plugin in plugins(family).values()}
    assert public == {name for name in homes if name.startswith("orchestrator.")}
    assert [name for name in sorted(public) if not re.fullmatch(r"[a-z0-9_.]+", name)] == []


def test_constraints_pin_every_dependency_and_nothing_else() -> None:
    text = (ROOT / "constraints.txt").read_text("utf-8")
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    loose = [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", pin)]
    assert loose == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    direct = [line for lines in (project["dependencies"], *extras) for line in lines]
    wanted = {re.split(r"[\[<>=!~;]", requirement)[0].strip() for requirement in direct}
    pinned = {normalised(pin.partition("==")[0]) for pin in pins}
    assert {normalised(name) for name in wanted} - pinned == {"archbench"}


def normalised(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_scripts_stop_at_the_first_error() -> None:
    scripts = [*sorted((ROOT / "scripts").rglob("[!_]*.sh")), ROOT / ".ci" / "run"]
    careless = [
        name_of(path)
        for path in scripts
        if "\nset -euo pipefail\n" not in path.read_text("utf-8") or not os.access(path, os.X_OK)
    ]
    assert careless == []
