"""From imported traces to tasks: what every environment over traces shares.

An environment over traces is a folder with an `env.toml` that names a folder of Trace rows (`train.jsonl`,
`eval.jsonl`, `test.jsonl`, as `vertigym traces import` writes them), and says which field holds the truth. What
cannot become a task is left out, counted and said (`Env.notes`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from vertigym.core.config import Config
from vertigym.core.errors import DataError
from vertigym.core.files import dumps
from vertigym.core.manifest import sealed_as
from vertigym.core.seeds import derive
from vertigym.core.types import SPLITS, Message, Split, Task
from vertigym.envs.folders import EnvFolder
from vertigym.envs.tasks import TaskSet
from vertigym.traces.preferences import accepted_reply
from vertigym.traces.records import IMPORTED, Trace, read_traces

_YEAR_9999 = 253370764800  # seconds since 1970
Paths = str | tuple[str, ...]


class TracesConfig(Config):
    """What every `env.toml` over traces may say."""

    id: str = Field(description="namespace/Name-v0")
    description: str = Field("", description="one line about it")
    traces: str = Field(
        ".", description="the folder of train.jsonl, eval.jsonl, test.jsonl, relative to env.toml"
    )
    system: str | None = Field(None, description="replaces the logged system messages; left out: they stay")
    instruction: str | None = Field(
        None, description="the system message of logs without one; left out: a short one, empty: none"
    )
    most: float = Field(
        0.5, gt=0, le=1, description="no answer may be that of a larger share of a split's tasks"
    )


@dataclass(slots=True)
class SkippedTraces:
    """How many traces became no task, by reason."""

    reasons: Counter[str] = field(default_factory=Counter)

    def notes(self) -> tuple[str, ...]:
        """One line a reason."""
        return tuple(
            f"{count} trace{'s' if count > 1 else ''} left out: {reason}"
            for reason, count in self.reasons.most_common()
        )


def read_split(folder: EnvFolder, config: TracesConfig) -> Iterator[tuple[Split, Trace]]:
    """Every trace with its split: of files in the environment's folder, or of an import of traces elsewhere.

    Raises:
        ConfigError: they are neither. DataError: no split has a file, or a line is not a Trace.
    """
    elsewhere = folder.path / config.traces
    is_import = sealed_as(elsewhere) == IMPORTED
    names = {split: f"{config.traces}/{split}.jsonl" for split in SPLITS}
    files = [(s, folder.path / name if is_import else folder.file(name)) for s, name in names.items()]
    if not any(file.is_file() for _, file in files):
        raise DataError(
            f"{elsewhere}: no train.jsonl, eval.jsonl or test.jsonl there; vertigym traces import makes them"
        )
    for split, file in files:
        if file.is_file():
            for trace in read_traces(file):
                yield split, trace


def make_tasks(
    folder: EnvFolder,
    config: TracesConfig,
    make: Callable[[Trace, Split], Task | str],
    *,
    instruction: str = "",
    key: Callable[[Task], str] = lambda task: dumps(task.answer),
) -> tuple[TaskSet, tuple[str, ...]]:
    """The tasks that `make` gives, or counts out by the reason it gives, and the notes of what was left out.

    One input is one task, the latest: a copy in a held-out split takes it out of train. Then the commonest
    answer (by `key`) of each split is thinned to the share `config.most`. `instruction` is the system message
    of logs that have none, unless the config has its own.

    Raises:
        DataError: no task is left (says why).
    """
    left, found = SkippedTraces(), dict[str, Task]()
    instruction = instruction if config.instruction is None else config.instruction
    for split, trace in read_split(folder, config):
        task = make(trace, split)
        if isinstance(task, str):
            left.reasons[task] += 1
            continue
        task = task.model_copy(update={"prompt": _opening(task, config.system, instruction)})
        text = dumps([dict(message) for message in task.messages()])
        if text in found:
            left.reasons["the same input again"] += 1
            found.pop(text)
        found[text] = task
    kept = [task for split in SPLITS for task in _thinned(found, split, config.most, key, left)]
    if not kept:
        raise DataError(f"{folder}: no trace became a task: {'; '.join(left.notes()) or 'the files are empty'}")
    return TaskSet(kept), left.notes()


def task_of(trace: Trace, split: Split, answer: Any, **info: Any) -> Task:
    """A task with the trace's chat as its prompt. Its `info.week` is the ISO week of the call, where it has a
    time (of our days) and no week of its own."""
    dated = trace.time is not None and 0 <= trace.time < _YEAR_9999
    week = {"week": datetime.fromtimestamp(trace.time or 0, UTC).strftime("%G-W%V")} if dated else {}
    return Task(
        id=trace.id,
        prompt=trace.messages,
        answer=answer,
        info={**week, **trace.meta, **info},
        split=split,
        cluster=trace.cluster or trace.customer or trace.session,
    )


def at(trace: Trace, paths: Paths) -> Any:
    """What stands in the first of `paths` that holds something: `label`, `meta.intent`, `feedback.edit`;
    `accepted` is the reply that people accepted. None where none does."""
    for path in (paths,) if isinstance(paths, str) else paths:
        value: Any = accepted_reply(trace) if path == "accepted" else trace
        for name in () if path == "accepted" else path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else _attribute(value, name)
        if value is not None:
            return value
    return None


def _attribute(value: Any, name: str) -> Any:
    if isinstance(value, BaseModel) and (name in type(value).model_fields or name in (value.model_extra or {})):
        return getattr(value, name)
    return None


def _opening(task: Task, system: str | None, instruction: str) -> str | tuple[Message, ...]:
    messages = task.messages()
    if system is not None:
        messages = [message for message in messages if message["role"] != "system"]
    first = system if system is not None else instruction
    if first and not any(message["role"] == "system" for message in messages):
        messages = [{"role": "system", "content": first}, *messages]
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return tuple(messages)


def _thinned(
    found: Mapping[str, Task], split: Split, most: float, key: Callable[[Task], str], left: SkippedTraces
) -> list[Task]:
    """A split's tasks with at most the share `most` of one answer, chosen by the tasks' ids."""
    tasks = [task for task in found.values() if task.split == split]
    counts = Counter(key(task) for task in tasks)
    if not counts or most == 1:
        return tasks
    answer, count = counts.most_common(1)[0]
    allowed = int((len(tasks) - count) * most / (1 - most))
    if count <= allowed or len(counts) == 1:
        return tasks
    ranked = sorted(
        (task.id for task in tasks if key(task) == answer), key=lambda name: derive("thinned", name)
    )
    dropped = set(ranked[allowed:])
    left.reasons[f"their answer is that of more than {most:.0%} of {split} (most = {most:g})"] += len(dropped)
    return [task for task in tasks if task.id not in dropped]
