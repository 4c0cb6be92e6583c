"""Environments for TRL's `GRPOTrainer`, and TRL's datasets and reward functions for our trainer.

from trl import GRPOTrainer
GRPOTrainer(model, **vertigym.to_trl(env), args=…).train()

env = vertigym.from_trl(dataset, [reward_function])
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vertigym.core.errors import DataError, InputError, MissingDependencyError
from vertigym.core.types import SPLITS, Split, Task
from vertigym.envs.env import Env, SingleTurnEnv
from vertigym.envs.tasks import TaskSet
from vertigym.interop.played_episode import PlayedEpisode
from vertigym.interop.trl_tools import tool_class
from vertigym.rewards.rubric import Part, Rubric

TRLReward = Callable[..., Sequence[float | None]]
_ID = "task_id"


def to_trl(env: Env, *, eval_split: Split = "eval") -> dict[str, Any]:
    """`train_dataset`, `eval_dataset` and `reward_funcs` of an environment, as keyword arguments of TRL's
    `GRPOTrainer`; of one with several turns its tools too, as `environment_factory`. What could not be scored
    is given as None, which TRL leaves out.

    Raises:
        InputError: the environment has several turns, and no tools to take them with.
        MissingDependencyError: `datasets` is not installed.
    """
    several = {"environment_factory": tool_class(env)} if env.max_turns > 1 else {}
    try:
        from datasets import Dataset
    except ImportError:
        raise MissingDependencyError("datasets", "trl", "to_trl") from None

    def rows(split: Split) -> Any:
        opened = [PlayedEpisode(env, task_id) for task_id in env.tasks.ids(split)]
        return Dataset.from_list([{"prompt": one.messages, _ID: one.task.id} for one in opened])

    def reward(completions: Sequence[Any], task_id: Sequence[str], **_: Any) -> list[float | None]:
        played = [PlayedEpisode(env, name) for name in task_id]
        return [_ended(one, said) for one, said in zip(played, completions, strict=True)]

    def reward_of_episodes(completions: Sequence[Any], environments: Any, **_: Any) -> list[float | None]:
        return [_ended(one.episode, said) for one, said in zip(environments, completions, strict=True)]

    return {
        "train_dataset": rows("train"),
        "eval_dataset": rows(eval_split),
        "reward_funcs": [reward_of_episodes if several else reward],
        **several,
    }


def from_trl(
    dataset: Iterable[Mapping[str, Any]] | Mapping[str, Iterable[Mapping[str, Any]]],
    reward_funcs: Sequence[TRLReward],
    *,
    weights: Sequence[float] | None = None,
    system: str = "",
) -> SingleTurnEnv:
    """An environment from a TRL dataset (rows with `prompt` and any other columns, or such rows by split) and
    TRL reward functions `f(prompts, completions, **columns) -> list`.

    Raises:
        DataError: a row without a prompt. InputError: another number of weights than of functions.
    """
    splits = dataset if isinstance(dataset, Mapping) else {"train": dataset}
    names: dict[str, Split] = {split: split for split in SPLITS}
    names["validation"] = "eval"
    if weights is not None and len(weights) != len(reward_funcs):
        raise InputError(f"{len(reward_funcs)} reward functions need as many weights, got {len(weights)}")
    tasks = [
        _task(row, names[split], number)
        for split, rows in splits.items()
        if split in names
        for number, row in enumerate(rows)
    ]
    parts = zip(reward_funcs, weights or [1.0] * len(reward_funcs), strict=True)
    return SingleTurnEnv(TaskSet(tasks), Rubric(*(Part(f, weight) for f, weight in parts)), system=system)


def _task(row: Mapping[str, Any], split: str, number: int) -> Task:
    if "prompt" not in row:
        raise DataError(f"row {number} of {split} has no 'prompt'; its columns are {', '.join(row)}")
    columns = {name: value for name, value in row.items() if name not in ("prompt", "answer")}
    return Task.model_validate(
        {
            "id": str(row.get("id", f"{split}-{number}")),
            "prompt": row["prompt"],
            "answer": row.get("answer"),
            "info": columns,
            "split": split,
        }
    )


def _ended(episode: PlayedEpisode, completion: Any) -> float | None:
    """The score of an episode, whose last words are played where they are still to be answered. TRL gives a
    string, or a list of messages where the prompt is a chat."""
    last = {"content": completion} if isinstance(completion, str) else completion[-1]
    if not episode.over and last.get("role", "assistant") == "assistant":
        episode.step(str(last.get("content") or ""))
    return episode.end().value
