"""Metrics of recorded runs, rounded, a row a step: what alarms must be silent about, and what they must see."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Rows = list[dict[str, float]]


def _rows(columns: Mapping[str, Sequence[float | None]]) -> Rows:
    """A metric that a step does not have is null."""
    steps = zip(*columns.values(), strict=True)
    return [{k: v for k, v in zip(columns, step, strict=True) if v is not None} for step in steps]


def _read(kind: str) -> dict[str, Rows]:
    recorded = json.loads((Path(__file__).parent / "metric_series.json").read_text())
    return {name: _rows(columns) for name, columns in recorded[kind].items()}


HEALTHY = _read("healthy")
COLLAPSING = _read("collapsing")
