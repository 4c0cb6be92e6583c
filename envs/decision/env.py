"""The decision environment: one case in, one decision out, scored against the rule engine's answer.

    env = load(EnvFolder(Path("environments/Loan-v0")))
    observation, info = env.reset(options={"split": "eval"})
    observation, reward, terminated, truncated, info = env.step('{"approval": true}')

The engine is not needed to play: its answers are in the tasks.
"""

from typing import Any

from vertigym.core.types import SPLITS, Task
from vertigym.envs.decision.config import DecisionConfig
from vertigym.envs.decision.prompts import rules_text
from vertigym.envs.env import SingleTurnEnv
from vertigym.envs.folders import EnvFolder
from vertigym.envs.tasks import TaskSet
from vertigym.rewards.decision import DecisionVerifier
from vertigym.rewards.rubric import Part, Rubric


class DecisionEnv(SingleTurnEnv):
    """A decision model's environment; `config` is its `env.toml`, `folder` where it lies. `only` keeps the
    tasks whose `info["change"]` it is (`diff.py` says which cases a change of the rules changes)."""

    def __init__(self, folder: EnvFolder, config: DecisionConfig, *, only: str = "") -> None:
        verifier = DecisionVerifier(**config.weights.model_dump(), tolerance=config.tolerance)
        model = config.model(folder) if config.rules == "shown" else None
        tasks = folder.tasks()
        if only:
            found = (tasks.get(i) for split in SPLITS for i in tasks.ids(split))
            tasks = TaskSet(task for task in found if task.info.get("change") == only)
        rubric = Rubric(Part(verifier, name="reward", timeout_s=None))
        super().__init__(tasks, rubric, system=rules_text(model) if model else "")
        self.folder = folder
        self.config = config

    def subject(self, task: Task) -> Any:
        """The case."""
        return task.info.get("input")

    def rules(self) -> list[str]:
        """The rules not proven unreachable; none for tasks about a change, which speak of some on purpose."""
        some = next((self.tasks.get(ids[0]) for split in SPLITS if (ids := self.tasks.ids(split))), None)
        return [] if some is None or "change" in some.info else self.config.reachable(self.folder)


def load(folder: EnvFolder, *, only: str = "", **changes: Any) -> DecisionEnv:
    """Open an environment folder; `changes` replace keys of its `env.toml` (`rules="shown"`), `only` keeps some
    of its tasks ("changed" or "same").

    Raises:
        InputError: the folder's files are missing or wrong (one line says what).
    """
    return DecisionEnv(folder, folder.config(DecisionConfig, **changes), only=only)
