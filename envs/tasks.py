"""Where an environment's tasks come from: a fixed list, JSONL files, or a seeded generator; always by split."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import ValidationError

from vertigym.core.errors import DataError, UnknownNameError
from vertigym.core.files import iter_jsonl
from vertigym.core.seeds import derive
from vertigym.core.stored_rows import StoredRows
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
    """A fixed list of tasks, of any length: many lie in a file (`core.stored_rows`).

    Raises:
        DataError: two tasks share an id.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks: StoredRows[Task] = StoredRows()
        self._ids: dict[Split, StoredRows[str]] = {split: StoredRows() for split in SPLITS}
        hashes = array("q")
        for task in tasks:
            self._tasks.append(task)
            self._ids[task.split].append(task.id)
            hashes.append(_hash(task.id))
        # Ids are found by their hashes in order: 16 bytes a task, where a dict of them takes 130.
        self._places = np.argsort(hashes, kind="stable")
        self._hashes = np.asarray(hashes)[self._places]
        for first, second in np.stack([self._places[:-1], self._places[1:]], 1)[np.diff(self._hashes) == 0]:
            if (name := self._tasks[second].id) == self._tasks[first].id:
                raise DataError(f"two tasks have the id {name!r}: ids must be unique over all splits")

    @classmethod
    def read(cls, *files: Path) -> "TaskSet":
        """Tasks from JSONL files of `Task` rows.

        Raises:
            DataError: a file is missing or a row is not a Task (names file and line).
        """
        return cls(_task(row, file, number) for file in files for number, row in enumerate(iter_jsonl(file), 1))

    def __iter__(self) -> Iterator[Task]:
        """Every task, in file order."""
        return iter(self._tasks)

    def ids(self, split: Split) -> Sequence[str]:
        """The ids of a split, in file order."""
        return self._ids[split].rows

    def get(self, task_id: str) -> Task:
        """The task with this id."""
        hashed = _hash(task_id)
        first, end = (np.searchsorted(self._hashes, hashed, side) for side in ("left", "right"))
        for place in self._places[first:end]:
            if (task := self._tasks[int(place)]).id == task_id:
                return task
        raise UnknownNameError("task", task_id, (task.id for task in self))


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


def _hash(task_id: str) -> int:
    return derive("task", task_id)


def _task(row: object, file: Path, number: int) -> Task:
    try:
        return Task.model_validate(row)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "row"
        raise DataError(f"{file}:{number}: not a task: {where}: {fault['msg']}") from None
