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
from vertigym.rewards.rubric import Part, Rubric

TRLReward = Callable[..., Sequence[float | None]]
_ID = "task_id"


def to_trl(env: Env, *, eval_split: Split = "eval") -> dict[str, Any]:
    """`train_dataset`, `eval_dataset` and `reward_funcs` of a single-turn environment, as keyword arguments of
    TRL's `GRPOTrainer`. A completion that could not be scored is given as None, which TRL leaves out.

    Raises:
        InputError: the environment has several turns. MissingDependencyError: `datasets` is not installed.
    """
    if env.max_turns > 1:
        raise InputError("to_trl needs a single-turn environment: TRL's reward functions see one completion")
    try:
        from datasets import Dataset
    except ImportError:
        raise MissingDependencyError("datasets", "trl", "to_trl") from None

    def rows(split: Split) -> Any:
        tasks = [env.tasks.get(task_id) for task_id in env.tasks.ids(split)]
        return Dataset.from_list([{"prompt": _opening(env, task), _ID: task.id} for task in tasks])

    def reward(completions: Sequence[Any], task_id: Sequence[str], **_: Any) -> list[float | None]:
        return [_value(env, name, _text(c)) for name, c in zip(task_id, completions, strict=True)]

    return {"train_dataset": rows("train"), "eval_dataset": rows(eval_split), "reward_funcs": [reward]}


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


def _opening(env: Env, task: Task) -> list[dict[str, Any]]:
    _, info = env.reset(options={"task": task})
    return [dict(message) for message in info["messages"]]


def _value(env: Env, task_id: str, completion: str) -> float | None:
    env.reset(options={"task": task_id})
    *_, info = env.step(completion)
    value: float | None = info["score"].value
    return value


def _text(completion: Any) -> str:
    """TRL gives a string, or a list of messages where the prompt is a chat."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])
