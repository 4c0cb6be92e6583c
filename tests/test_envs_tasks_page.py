"""Every example of docs/tasks.md is complete: it loads, and passes `env check`."""

import os
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from vertigym import envs
from vertigym.core.types import SPLITS
from vertigym.envs.agent.importer import import_agent
from vertigym.envs.check import check
from vertigym.envs.decision.importer import import_decision
from vertigym.envs.registry import BUILT_IN_KINDS

PAGE = Path(__file__).parents[1] / "docs" / "tasks.md"
RULES = "rules.csv"


@cache
def examples() -> dict[str, dict[str, str]]:
    """By kind, the files of its example."""
    _, *sections = re.split(r"^## (?=\w)", PAGE.read_text(), flags=re.MULTILINE)
    blocks = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)
    return {section.split()[0]: dict(blocks.findall(section)) for section in sections}


def written(kind: str, folder: Path) -> str:
    """The example as an environment."""
    if kind == "mcp":
        pytest.importorskip("mcp")
    files = examples()[kind]
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    if RULES not in files:
        return f"{folder}?trust=true" if kind in ("program", "mcp") else str(folder)
    make = import_agent if kind == "agent" else import_decision
    make(folder / RULES, "acme/Fee-v0", folder / "made")
    return str(folder / "made")


@pytest.fixture(autouse=True)
def activated(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an example calls python3 is the Python of the tests."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def test_every_kind_has_an_example() -> None:
    assert set(examples()) == {*BUILT_IN_KINDS, "pytest"}


@pytest.mark.parametrize("kind", sorted({*examples()} - {"decision", "agent", "program"}))
def test_an_example_loads_and_its_references_are_right(tmp_path: Path, kind: str) -> None:
    env = envs.make(written(kind, tmp_path))
    ids = [i for split in SPLITS for i in env.tasks.ids(split)]
    assert len(ids) > 1
    for task_id in ids:
        env.reset(seed=0, options={"task": task_id})
        for action in env.reference(env.tasks.get(task_id)) or ():
            *_, info = env.step(action)
        assert info["score"].value == pytest.approx(1), task_id


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*examples()} - {"program"}))  # has its own, long
def test_an_example_passes_the_check(tmp_path: Path, kind: str) -> None:
    report = check(written(kind, tmp_path), tasks=3)
    assert report.passed(), [f"{finding.message}: {finding.advice}" for finding in report.findings]
