r"""Math data sets on disk: any JSONL with `question` and `answer`, and GSM8K's format.

env = gsm8k(Path("gsm8k"))                       # train.jsonl and test.jsonl
env = questions({"test": Path("math500.jsonl")}, where="boxed")

Nothing is downloaded.
"""

from collections.abc import Mapping
from pathlib import Path

from vertigym.core.types import Split
from vertigym.envs.env import SingleTurnEnv
from vertigym.envs.rows import read_rows
from vertigym.envs.tasks import TaskSet
from vertigym.rewards.answers import form
from vertigym.rewards.math import math_equal
from vertigym.rewards.rubric import Part, Rubric

GSM8K_SYSTEM = "Solve the problem step by step. Write the final number on the last line, after ####."
BOXED_SYSTEM = "Solve the problem step by step. Put the final answer in \\boxed{}."


def questions(
    files: Mapping[Split, Path],
    *,
    where: str = "boxed",
    reference: str = "whole",
    eval_share: float = 0.0,
    system: str = BOXED_SYSTEM,
    limit_s: float = 1.0,
) -> SingleTurnEnv:
    """Questions whose answers are compared as mathematics.

    `where`: the place of the answer in the reply; `reference`: its place in the answer column; `eval_share`:
    the share of train held out as eval; `limit_s`: processor seconds for one comparison.

    Raises:
        DataError: a file is missing, or a row has no question or reference. MissingDependencyError:
            `math-verify` is not installed.
    """
    tasks = TaskSet(
        task
        for split, file in files.items()
        for task in read_rows(
            file, split, reference=reference, eval_share=eval_share if split == "train" else 0.0
        )
    )
    rubric = Rubric(Part(math_equal(where=where, limit_s=limit_s), name="math"))
    env = SingleTurnEnv(tasks, rubric, system=system, answer_form=form(where))
    env.parallel_steps = 8  # a step may wait for a worker process
    return env


def gsm8k(folder: Path, *, eval_share: float = 0.05) -> SingleTurnEnv:
    """GSM8K (Cobbe et al. 2021) from `train.jsonl` and `test.jsonl`; part of train is held out as eval.

    Raises:
        DataError: a file is missing. MissingDependencyError: `math-verify`.
    """
    return questions(
        {"train": folder / "train.jsonl", "test": folder / "test.jsonl"},
        where="#### or last line",
        reference="####",
        eval_share=eval_share,
        system=GSM8K_SYSTEM,
    )
