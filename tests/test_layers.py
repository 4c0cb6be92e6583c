"""The rooms import downwards only (the table is in docs/architecture.md), and the package list is complete."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "dialects": {"core"},
    "kernels": set(),
    "sandboxes": {"core"},
    "rewards": {"core", "sandboxes"},
    "feel": {"core"},
    "decisions": {"core", "feel"},
    "traces": {"core"},
    "envs": {"core", "dialects", "sandboxes", "rewards", "decisions", "traces"},
    "policies": {"core", "kernels"},
    "serving": {"core", "dialects", "policies", "traces"},
    "rollouts": {"core", "envs", "policies"},
    "evals": {"core", "envs", "policies", "rollouts"},
    "interop": {"core", "rewards", "serving", "envs", "policies", "rollouts", "evals"},
    "learner": {"core", "kernels", "policies"},
    "remote": {"core", "dialects", "policies", "learner", "serving"},
    "trainer": {"core", "traces", "envs", "policies", "rollouts", "evals", "learner"},
    "reports": {"core", "evals", "trainer"},
    "projects": {"core", "rewards", "decisions", "traces", "envs", "policies", "trainer"},
}
ALLOWED["studio"] = {"core", "dialects", "decisions", "envs", "evals", "trainer", "reports", "serving"}
ALLOWED["cli"] = set(ALLOWED)


def imported_modules(file: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively; use the full name"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        used = {m.split(".")[1] for m in imported_modules(file) if m.startswith("vertigym.")} & set(ALLOWED)
        upward = used - ALLOWED[room] - {room}
        assert not upward, f"{file.relative_to(ROOT)} imports {', '.join(sorted(upward))}, which is above it"


def test_nothing_in_the_package_imports_the_command_line() -> None:
    for room in set(ALLOWED) - {"cli"}:
        for file in (ROOT / room).rglob("*.py"):
            assert not any(m.startswith("vertigym.cli") for m in imported_modules(file)), file


def test_every_folder_with_modules_is_packaged() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {"vertigym"}
    for room in ALLOWED:
        for file in (ROOT / room).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                found.add(".".join(("vertigym", *file.relative_to(ROOT).parent.parts)))
    assert listed == found


def test_kernels_is_a_bare_folder() -> None:
    """With an `__init__.py` the root would shadow the `kernels` package that transformers imports."""
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_a_test_file_is_named_after_the_room_that_it_tests() -> None:
    whole = {"examples", "habits", "hostile", "layers", "packaging", "story", "surface", "two"}
    rooms = {file.stem.split("_")[1] for file in (ROOT / "tests").glob("test_*.py")}
    assert rooms <= set(ALLOWED) | whole
