"""Imports point down only, pure code stays pure, and heavy libraries are loaded late."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("duckdb", "matplotlib", "optuna", "pandas", "pyarrow", "ray", "seaborn")

# What a dependency brings along because its own interface is made of it.
BROUGHT = {
    "jinja2": {"markupsafe"},
    "omegaconf": {"pyyaml"},
    "seaborn": {"matplotlib", "pandas"},
}


def contracts(root: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says of the checkout at ``root``."""
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package that a test may spoil."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "orchestrator", tmp_path / "orchestrator", ignore=without)
    return tmp_path


def test_contracts_hold() -> None:
    result = contracts(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_contracts_find_what_they_forbid(copy: Path) -> None:
    package = copy / "orchestrator"
    (package / "caches" / "planted_cache.py").write_text("import time\n")
    planted = "from orchestrator.caches import planted_cache\nimport orchestrator.config.schema\n"
    (package / "protocols" / "planted.py").write_text(planted)
    (package / "analysis" / "planted.py").write_text("def late():\n    import ray\n")
    (package / "planted.py").touch()
    result = contracts(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    said = " ".join(result.stdout.split())
    for line in (
        "orchestrator.caches.planted_cache -> time",
        "orchestrator.protocols.planted -> orchestrator.caches.planted_cache",
        "orchestrator.protocols.planted -> orchestrator.config.schema",
        "orchestrator.analysis.planted -> ray",
        "not listed as layers: - orchestrator.planted",
    ):
        assert line in said


def test_core_and_plugins_load_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from orchestrator.core.registry import Family, plugins\n"
        "import orchestrator.config.schema\n"
        "for family in Family: plugins(family)\n"
        f"print(sorted(set(sys.modules) & set({HEAVY!r})))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def imported_names() -> set[str]:
    """Top-level names of everything that the package imports."""
    names: set[str] = set()
    for path in sorted((ROOT / "orchestrator").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add((node.module or "").partition(".")[0])
    return names


def distribution(requirement: str) -> str:
    """The name in a requirement, lower case."""
    return re.split(r"[\s\[(<>=!~;]", requirement.strip())[0].lower()


def test_everything_imported_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["redis"]]
    declared = {distribution(line) for line in requirements}
    for bringer, brought in BROUGHT.items():
        brings = {distribution(line) for line in importlib.metadata.requires(bringer) or []}
        assert brought <= brings
        declared |= brought
    providers = importlib.metadata.packages_distributions()
    foreign = imported_names() - set(sys.stdlib_module_names) - {"orchestrator"}
    undeclared = {
        name
        for name in foreign
        if not {provider.lower() for provider in providers.get(name, [])} & declared
    }
    assert undeclared == set()
