"""The returns desk in agent mode, for tests: its rules, sizes that take seconds, and tasks of a kind."""

from vertigym.core.types import SPLITS, Split, Task
from vertigym.envs.agent.env import AgentEnv
from vertigym.envs.decision.builtin import RETURNS, folder_of

DECISION = folder_of(RETURNS) / "decision.json"
SIZES: dict[Split, int] = {"train": 60, "eval": 12, "test": 20}


def tasks_of(env: AgentEnv) -> list[Task]:
    return [env.tasks.get(i) for split in SPLITS for i in env.tasks.ids(split)]


def asking(env: AgentEnv) -> Task:
    """A task in which the customer must be found, and be asked for a fact."""
    return next(
        task
        for task in tasks_of(env)
        if not task.info["case_known"] and set(task.info["withheld"]) - set(task.info["stated"])
    )
