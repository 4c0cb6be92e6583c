"""Every data set of the package `reasoning-gym` (Stojanovski et al. 2025) as `reasoning_gym/NAME-v0`.

Questions, references and verdicts are the package's own; its verifiers differ in what they forgive, so check an
environment before training on it (docs/env-check.md lists which fail).
"""

import re
import warnings
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vertigym.core.errors import MissingDependencyError, UnknownNameError
from vertigym.core.files import jsonable
from vertigym.core.seeds import derive
from vertigym.core.types import SPLITS, Score, Split, Task
from vertigym.envs.env import SingleTurnEnv
from vertigym.envs.tasks import GeneratedTasks
from vertigym.rewards.answers import extractor, form
from vertigym.rewards.rubric import Part, Rubric

SIZES: dict[Split, int] = {"train": 1000, "eval": 100, "test": 200}
SYSTEM = "Give the final answer only."
TAG_SYSTEM = "Think first, then give the final answer between <answer> and </answer>."
_NAME = re.compile(r"""(?:DATASET_NAME\s*=\s*|register_dataset\(\s*)["'](\w+)["']""")


@cache
def names() -> list[str]:
    """The package's data sets, read from its source (importing it takes seconds); empty if not installed."""
    spec = find_spec("reasoning_gym")
    if spec is None or spec.origin is None:
        return []
    files = Path(spec.origin).parent.rglob("*.py")
    return sorted({name for file in files for name in _NAME.findall(file.read_text("utf-8"))})


def load(
    name: str,
    where: str = "whole",
    sizes: Mapping[Split, int] = SIZES,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
) -> SingleTurnEnv:
    """The environment of one data set.

    `where`: the place of the answer in the reply (`tag` for models that think first); `config`: the data set's
    own settings, its difficulty among them.

    Raises:
        MissingDependencyError: `reasoning-gym` is not installed. UnknownNameError: no such data set or place.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import reasoning_gym
    except ImportError:
        raise MissingDependencyError("reasoning-gym", "reasoning-gym", f"reasoning_gym/{name}-v0") from None
    if name not in names():
        raise UnknownNameError("reasoning-gym data set", name, names())
    find = extractor(where)
    sets = {
        split: reasoning_gym.create_dataset(
            name,
            seed=derive("reasoning_gym", name, split, seed) % 2**31,
            size=sizes.get(split, 0),
            **(config or {}),
        )
        for split in SPLITS
        if sizes.get(split, 0)
    }

    @lru_cache(maxsize=1 << 13)
    def entry(task_id: str) -> dict[str, Any]:
        split, _, index = task_id.rpartition("-")
        made: dict[str, Any] = sets[split][int(index)]  # type: ignore[index]  # GeneratedTasks checked the id
        return made

    def make(split: Split, index: int) -> Task:
        made = entry(f"{split}-{index}")
        return Task(
            id=f"{split}-{index}",
            prompt=made["question"],
            answer=made["answer"],
            info=jsonable(made["metadata"]),
            split=split,
            cluster=str(made["metadata"].get("source_index", index)),
        )

    def score_answer(completion: str, task: Task) -> Score:
        found = find(completion)
        value = sets[task.split].score_answer(found, entry(task.id))
        return Score(float(value), {}, {"read": found})

    rubric = Rubric(Part(score_answer, timeout_s=20.0))
    system = TAG_SYSTEM if where == "tag" else SYSTEM
    return SingleTurnEnv(GeneratedTasks(make, sizes), rubric, system=system, answer_form=form(where))
