"""A run's numbers over its steps, as curves that a page can hold.

A file of metrics that grows is read on from where reading stopped. A long curve is drawn from a few hundred
means, each with the smallest and the largest value of its span.
"""

import os
from array import array
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vertigym.core.bounds import json_value
from vertigym.core.errors import DataError
from vertigym.evals.report import Report
from vertigym.reports.metric_meanings import meaning
from vertigym.reports.run_summary import gated_metrics

POINTS = 400  # of one curve
COLUMNS = 24  # evals side by side
_NUMBER = (int, float)
Json = dict[str, Any]


class MetricColumns:
    """`metrics.jsonl` as a column a metric; every row is parsed once, however often the file is looked at."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._begin(0)

    def read_on(self) -> None:
        """Read what is new. A file that was put in the place of the one before is read from its start.

        Raises:
            DataError: a line is no row of metrics.
        """
        if not self._file.exists():
            self._begin(0)
            return
        with self._file.open("rb") as opened:
            about = os.fstat(opened.fileno())
            if about.st_ino != self._inode or about.st_size < self._place:
                self._begin(about.st_ino)
            opened.seek(self._place)
            for line in opened:
                if not line.endswith(b"\n"):  # it is still being written
                    break
                self._place += len(line)
                if line.strip():
                    self._add(line)

    def curve(self, name: str, most: int = POINTS) -> list[list[float | None]]:
        """[step, value, None, None], or, of more than `most` rows, [step, mean, least, largest] of spans."""
        steps, values = (np.asarray(column) for column in self._columns.get(name, (array("q"), array("d"))))
        if len(steps) <= most:
            return [[int(s), _short(v), None, None] for s, v in zip(steps, values, strict=True)]
        starts = np.linspace(0, len(steps), most, endpoint=False).astype(int)
        ends = np.append(starts[1:], len(steps))
        means = np.add.reduceat(values, starts) / (ends - starts)
        spans = (means, np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts))
        return [[int(step), *map(_short, row)] for step, *row in zip(steps[ends - 1], *spans, strict=True)]

    def curves(self) -> list[Json]:
        """Every number that training logged."""
        return [
            {"name": name, "points": self.curve(name), "eval": False, "note": meaning(name)}
            for name in self._columns
        ]

    def last(self, name: str) -> float | None:
        """The newest value of a metric."""
        return self._columns[name][1][-1] if name in self._columns else None

    def _begin(self, inode: int) -> None:
        self._inode, self._place, self.rows, self.last_step = inode, 0, 0, 0
        self._columns: dict[str, tuple[array[int], array[float]]] = {}

    def _add(self, line: bytes) -> None:
        self.rows += 1
        try:
            row = json_value(line.decode())
            step = self.last_step = int(row["step"])
        except (ValueError, TypeError, KeyError):
            raise DataError(f"{self._file}:{self.rows}: not a row of metrics (JSON with a step)") from None
        for name, value in row.items():
            if isinstance(value, _NUMBER) and name != "step":
                column = self._columns.get(name)
                if column is None:
                    column = self._columns[name] = array("q"), array("d")
                column[0].append(step)
                column[1].append(value)


def eval_curves(suites: Mapping[str, Mapping[int, Report]], promoted: Collection[int]) -> list[Json]:
    """What each suite's gates are on, over the steps, with its interval; promoted steps are marked."""
    return [
        {
            "name": f"{name}: {metric}",
            "points": [
                [step, found.mean, found.low, found.high]
                for step, report in sorted(reports.items())
                if (found := gated_metrics(report)[metric]).mean is not None
            ],
            "eval": True,
            "marked": sorted(promoted),
        }
        for name, reports in suites.items()
        for metric in gated_metrics(next(iter(reports.values())))
    ]


def some_steps(steps: Sequence[int], kept: int | None, most: int = COLUMNS) -> list[int]:
    """At most about `most` of the steps: the first, the last, `kept`, and others evenly between them."""
    if len(steps) <= most:
        return list(steps)
    even = {steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)}
    return sorted(even | ({kept} & set(steps) if kept is not None else set()))


def _short(value: float) -> float:
    """Six digits: more than a chart shows."""
    return float(f"{value:.6g}")
