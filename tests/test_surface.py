"""The frozen surface: exports, commands, config keys, metrics; and names that stand once in the package."""

import ast
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from vertigym.core.config import parse
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

from .returns import ENV, warm
from .surface import FROZEN, metrics, surface

ROOT = Path(__file__).parents[1]
MODULES = [
    file
    for file in ROOT.rglob("*.py")
    if not {part for part in file.relative_to(ROOT).parts if part[0] == "."}
    and file.relative_to(ROOT).parts[0]
    not in ("tests", "benchmarks", "examples", "docs", "build", "dist", "runs")
]
# Modules that play the same role in sibling folders.
ROLES = {"__init__.py", "builtin.py", "config.py", "env.py", "formats.py", "importer.py", "registry.py"}
# Words of an earlier vocabulary, in names: the field has its own for each.
PRIVATE = re.compile(
    r"inmate|parcel|(?<!fire)walls?(?![_-]?clock)|^Farm$|^Led$|one_voice|odds|foretold|silenced|spoken|places_T|^Shown$|"
    r"^Played$|^Earned$|^paid$|^trust$|^doubt$"
)


def test_the_surface_is_the_frozen_one() -> None:
    assert surface().splitlines() == FROZEN.read_text().splitlines(), (
        "a change of what users hold on to is on purpose: python -m tests.surface, and a line in CHANGELOG.md"
    )


def test_a_module_name_stands_once_but_for_roles() -> None:
    counts = Counter(file.name for file in MODULES)
    assert {name for name, count in counts.items() if count > 1} <= ROLES


def test_a_public_class_name_stands_once() -> None:
    places = defaultdict(list)
    for file in MODULES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name[0] != "_":
                places[node.name].append(str(file.relative_to(ROOT)))
    assert not {name: files for name, files in places.items() if len(files) > 1}


def test_names_are_the_fields_own_words() -> None:
    found = set()
    for file in MODULES:
        names = {file.stem}
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
        found |= {f"{file.relative_to(ROOT)}: {name}" for name in names if PRIVATE.search(name)}
    assert not found


def test_rooms_and_modules_keep_their_sizes() -> None:
    lines = {file: file.read_text().count("\n") for file in MODULES}
    rooms: Counter[str] = Counter()
    for file, count in lines.items():
        rooms[str(file.relative_to(ROOT).parent)] += count  # a folder for a kind apart is a room of its own
    assert max(lines.values()) <= 400, max(lines, key=lambda file: lines[file])
    assert sorted(lines.values())[len(lines) // 2] <= 150
    assert rooms.most_common(1)[0][1] <= 0.22 * sum(lines.values()), rooms.most_common(3)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warm(tmp_path_factory.mktemp("start"), tasks=60)


@pytest.mark.parametrize("kind", ["sft", "dpo", "grpo", "ppo"])
def test_every_metric_of_a_run_is_documented(kind: str, start: Path, tmp_path: Path) -> None:
    rows = {
        "sft": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        "dpo": {"messages": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c"},
    }
    data = str(tmp_path / "rows.jsonl")
    table = {
        "name": kind, "env": ENV, "algorithm": kind, "model": str(start), "steps": 1, "threads": 1,
        "output": str(tmp_path),
    }  # fmt: skip
    if kind in rows:
        Path(data).write_text(json.dumps(rows[kind]) + "\n")
        table[kind] = {"data": data} | ({"held_out": data} if kind == "dpo" else {})
    else:
        table["rollout"] = {"tasks": 4, "group_size": 4, "max_tokens": 16}
        table["policy"] = {"kl": 0.01, "entropy": 0.01, "ratio_to": "trainer", "correction": "token"}
    outcome = train(parse(RunConfig, table, source="test"))
    (logged,) = outcome.run.metrics()
    named = {re.sub("reward/.*", "reward/PART", name) for name in logged} - {"step"}
    assert named <= set(metrics()), "docs/training.md, What the metrics mean"
