"""Where an environment's tasks come from: a fixed list, JSONL files, or a seeded generator; always by split."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from vertigym.core.errors import DataError, UnknownNameError
from vertigym.core.files import read_jsonl
from vertigym.core.types import SPLITS, Split, Task


class Tasks(Protocol):
    """A set of tasks by split. Ids are unique over all splits."""

    def ids(self, split: Split) -> Sequence[str]:
        """The ids of a split, in a fixed order."""
        ...

    def get(self, task_id: str) -> Task:
        """The task.

        Raises:
            UnknownNameError: no task has this id.
        """
        ...


class TaskSet:
    """A fixed list of tasks.

    Raises:
        DataError: two tasks share an id.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._by_id: dict[str, Task] = {}
        self._ids: dict[Split, list[str]] = {split: [] for split in SPLITS}
        for task in tasks:
            if task.id in self._by_id:
                raise DataError(f"two tasks have the id {task.id!r}: ids must be unique over all splits")
            self._by_id[task.id] = task
            self._ids[task.split].append(task.id)

    @classmethod
    def read(cls, *files: Path) -> "TaskSet":
        """Tasks from JSONL files of `Task` rows.

        Raises:
            DataError: a file is missing or a row is not a Task (names file and line).
        """
        return cls(_task(row, file, number) for file in files for number, row in enumerate(read_jsonl(file), 1))

    def __iter__(self) -> Iterator[Task]:
        """Every task, in file order."""
        return iter(self._by_id.values())

    def ids(self, split: Split) -> Sequence[str]:
        """The ids of a split, in file order."""
        return self._ids[split]

    def get(self, task_id: str) -> Task:
        """The task with this id."""
        try:
            return self._by_id[task_id]
        except KeyError:
            raise UnknownNameError("task", task_id, self._by_id) from None


class GeneratedTasks:
    """Tasks made when asked for: `make(split, index)` must give the same task every time, with the id
    `f"{split}-{index}"`."""

    def __init__(self, make: Callable[[Split, int], Task], sizes: Mapping[Split, int]) -> None:
        self._make = make
        self._sizes = sizes

    def ids(self, split: Split) -> Sequence[str]:
        """`train-0`, `train-1`, …"""
        return [f"{split}-{index}" for index in range(self._sizes.get(split, 0))]

    def get(self, task_id: str) -> Task:
        """The task with this id."""
        split, _, index = task_id.rpartition("-")
        for known in SPLITS:
            if split == known and index.isdecimal() and int(index) < self._sizes.get(known, 0):
                return self._make(known, int(index))
        raise UnknownNameError("task", task_id, (i for s in SPLITS for i in self.ids(s)[:2]))


def _task(row: object, file: Path, number: int) -> Task:
    try:
        return Task.model_validate(row)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "row"
        raise DataError(f"{file}:{number}: not a task: {where}: {fault['msg']}") from None
