"""Folder environments of questions and answers: an `env.toml`, files of rows, and a reward by name. No Python.

    support-v0/
      env.toml
      train.jsonl   one row a line: `question` (or `prompt`, text or chat messages), `answer`;
      test.jsonl    optional `id`, `info`, `cluster`

The `env.toml`:

    id = "acme/Support-v0"
    kind = "rows"
    system = "Answer with one word."
    eval_share = 0.1                      # held out from train, by the question's own hash

    [files]                               # what `traces.table_rows` reads: also .csv, .parquet, hf://owner/name
    train = "train.jsonl"
    test = "test.jsonl"

    [columns]                             # ours = theirs, where they have other names
    question = "problem"

    [reward]
    name = "normalised_text"              # vertigym.rewards.named; its arguments follow
    where = "last line"
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from vertigym.core.config import Config
from vertigym.core.errors import ConfigError, DataError
from vertigym.core.seeds import derive
from vertigym.core.types import Split, Task
from vertigym.envs.env import SingleTurnEnv
from vertigym.envs.folders import EnvFolder
from vertigym.envs.tasks import TaskSet
from vertigym.rewards.answers import extractor, form
from vertigym.rewards.named import named
from vertigym.rewards.rubric import Part, Rubric
from vertigym.traces.table_rows import on_hub, read_table

QUESTION = ("question", "prompt")
# What others call these columns, the usual first.
ALIKE: Mapping[str, Sequence[str]] = {
    "question": ("problem", "input", "instruction", "query", "text", "task", "q"),
    "answer": ("solution", "output", "response", "target", "label", "completion", "a"),
}
_KNOWN = ("id", "example_id", "prompt", "question", "answer", "info", "cluster", "split")


class RowFilesConfig(Config):
    """What every kind of environment says of tasks in JSONL files and a reward by name."""

    id: str = Field(description="namespace/Name-v0")
    description: str = Field("", description="one line about it")
    instruction: str = Field("", description="added below every question")
    reference: str = Field("whole", description="where the reference stands in the answer column")
    eval_share: float = Field(0.0, ge=0, lt=1, description="share of train held out as eval")
    files: dict[Split, str] = Field(
        min_length=1, description="rows by split: a file, a folder, hf://owner/name"
    )
    columns: dict[Literal["id", "question", "answer", "info", "cluster"], str] = Field(
        {}, description="our name of a column = theirs"
    )
    reward: dict[str, Any] = Field(description="name, and arguments of the reward")


class RowsConfig(RowFilesConfig):
    """`env.toml` of a rows environment."""

    kind: Literal["rows"]
    system: str = Field("", description="the system message")


def load(folder: EnvFolder, **changes: Any) -> SingleTurnEnv:
    """The environment in `folder`.

    Raises:
        ConfigError: env.toml is wrong. DataError: a file is missing or a row is not a task.
    """
    config = folder.config(RowsConfig, **changes)
    where = str(config.reward.get("where", "whole"))
    rubric = row_rubric(config, folder)
    return SingleTurnEnv(row_tasks(config, folder), rubric, system=config.system, answer_form=form(where))


def row_tasks(config: RowFilesConfig, folder: EnvFolder) -> TaskSet:
    """The tasks in an environment's files.

    Raises:
        DataError: a file is missing or a row is not a task. ConfigError: a file leads out of the folder.
    """
    return TaskSet(
        task
        for split, file in config.files.items()
        for task in read_rows(
            _source(folder, file),
            split,
            columns=dict[str, str](config.columns.items()),
            reference=config.reference,
            instruction=config.instruction,
            eval_share=config.eval_share if split == "train" else 0.0,
        )
    )


def _source(folder: EnvFolder, name: str) -> str | Path:
    """
    Raises:
        ConfigError: the file leads out of the folder, or is a data set of a hub, and the folder is not trusted.
    """
    if on_hub(name):
        folder.needs_trust(f"{name!r} is fetched from a hub")
        return name
    return folder.file(name)


def row_rubric(config: RowFilesConfig, folder: EnvFolder) -> Rubric:
    """The reward that an environment names.

    Raises:
        ConfigError: it has no name, wrong arguments, or is code in a folder that is not trusted.
    """
    reward = dict(config.reward)
    name = reward.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f'{folder.config_file}: [reward] needs a name, for example name = "exact"')
    if ":" in name:
        folder.needs_trust(f"the reward {name!r} is code")
    return Rubric(Part(named(name, reward), name=name.rpartition(":")[2]))


def read_rows(
    source: str | Path,
    split: Split,
    *,
    columns: Mapping[str, str] | None = None,
    reference: str = "whole",
    instruction: str = "",
    eval_share: float = 0.0,
) -> Iterator[Task]:
    """Tasks from rows (`traces.table_rows`) with `question` (or `prompt`) and `answer`.

    `columns`: our name of a column -> theirs. `reference`: where the reference stands in the answer column
    (`####` for GSM8K). `eval_share`: this share of the rows becomes split `eval`, chosen by the question's
    text, so that equal questions stay together. Columns nobody knows go into `info`.

    Raises:
        DataError: missing, or a row without a question or a reference (names file and line).
    """
    find = extractor(reference)
    for number, (where, row) in enumerate(read_table(source, split=split, columns=columns), 1):
        question = row.get("prompt", row.get("question"))
        if not question:
            raise DataError(f"{where}: no {' or '.join(map(repr, QUESTION))}{_near('question', row)}")
        answer = row.get("answer")
        if isinstance(answer, str) and reference != "whole":
            answer = find(answer)
        if answer is None:
            at = f" at {reference!r}" if reference != "whole" else _near("answer", row)
            raise DataError(f"{where}: no 'answer'{at}")
        held_out = eval_share and derive("rows eval", json.dumps(question)) % 10_000 < eval_share * 10_000
        yield _task(
            where, row, question, answer, "eval" if held_out else split, instruction, f"{split}-{number}"
        )


def _near(ours: str, row: Mapping[str, Any]) -> str:
    """Which columns there are, and how one of them becomes ours."""
    names = ", ".join(row) or "none"
    near = next((name for name in ALIKE[ours] if name in row), "")
    return f"; the columns are {names}" + (f"; name yours: [columns] {ours} = {near or '…'!r}")


def _task(
    where: str, row: Mapping[str, Any], question: Any, answer: Any, split: Split, instruction: str, name: str
) -> Task:
    if instruction and isinstance(question, str):
        question = f"{question}\n\n{instruction}"
    elif instruction:
        last = {**question[-1], "content": f"{question[-1]['content']}\n\n{instruction}"}
        question = [*question[:-1], last]
    info = row.get("info") or {}
    if isinstance(info, str):  # a JSON string, as some data sets store it
        try:
            info = json.loads(info)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: 'info' is a string that is not JSON ({error.msg})") from None
    try:
        return Task(
            id=str(row.get("id", row.get("example_id", name))),
            prompt=question,
            answer=answer,
            info={**{key: value for key, value in row.items() if key not in _KNOWN}, **info},
            split=split,
            cluster=str(row.get("cluster", "")),
        )
    except (ValidationError, TypeError) as error:
        raise DataError(f"{where}: not a task: {str(error).splitlines()[0]}") from None
