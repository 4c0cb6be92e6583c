"""Agent mode for the 45 public decision models: each becomes an environment whose every task is proven."""

from pathlib import Path

import pytest

from vertigym.core.types import SPLITS, Split
from vertigym.envs.agent.env import load
from vertigym.envs.agent.expert import replay
from vertigym.envs.agent.importer import import_agent
from vertigym.envs.folders import EnvFolder

NOW = "2025-03-19T12:00:00Z"
SIZES: dict[Split, int] = {"train": 24, "eval": 6, "test": 10}
QUICK = ("company-analysis", "set-fee", "table-loop")  # nested fields, few cases, a list of records


def test_all_models_are_there(data: Path) -> None:
    assert len(list((data / "jdm").glob("*.json"))) == 45


@pytest.mark.parametrize("name", QUICK)
def test_a_model_in_agent_mode(data: Path, tmp_path: Path, name: str) -> None:
    proven(data / "jdm" / f"{name}.json", tmp_path / name)


@pytest.mark.slow
def test_every_third_model_in_agent_mode(data: Path, tmp_path: Path) -> None:
    files = sorted((data / "jdm").glob("*.json"))[1::3]
    assert sum(proven(file, tmp_path / file.stem) for file in files) > 15 * 30


def proven(file: Path, folder: Path) -> int:
    """Import, then play again what the import has proven; how many tasks there are."""
    report = import_agent(file, f"jdm/{file.stem}-v0", folder, sizes=SIZES, now=NOW)
    assert not any("not proven" in warning for warning in report.warnings)
    env = load(EnvFolder(folder))
    tasks = [env.tasks.get(i) for split in SPLITS for i in env.tasks.ids(split)]
    for task in tasks:
        reference = list(env.reference(task) or [])
        score = replay(env, task, reference)
        assert (score.value, score.parts["lookups"], score.parts["needless"]) == (1.0, 1.0, 0.0), task.id
        assert replay(env, task, reference[-1:]).value == 0.0
        other = [action.replace(f'"{env.world.case}"', f'"{env.world.other}"') for action in reference]
        assert replay(env, task, other).value == 0.0
    env.close()
    return len(tasks)
