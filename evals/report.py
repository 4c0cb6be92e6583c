"""Report: what a suite measured of one model, task by task, and the estimates made from it.

A report is a pure function of its rows and settings: the same rows give the same numbers, to the bit.
"""

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import read_text, whole_characters, write_text
from vertigym.evals.clustered import ClusteredValues
from vertigym.evals.mean_bounds import Range
from vertigym.evals.metrics import (
    Row,
    check_metric,
    limits_of,
    price_of,
    quantile,
    task_values,
    total_cost,
)
from vertigym.evals.rules import is_quantile
from vertigym.evals.statistics import Estimate, estimate, variance_split
from vertigym.evals.suite import Price, Suite

VERSIONED = ("vertigym", "numpy", "scipy", "gymnasium", "transformers", "torch", "zen-engine")
_ROWS = '\n "rows": ['  # as `save` writes it, last; no text in JSON holds a line break


class Report(BaseModel):
    """A suite's result for one model.

    `metrics` holds every metric asked for, overall and by environment; `slices` the score by slice name and
    value (`slices["rule"]["late-return"]`). `unscored` counts samples without a verdict, by reason. `cluster`
    says what is taken as one piece of evidence, `ranges` what a task's value of a metric can be.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    suite_hash: str
    model: str
    seed: int
    started: str
    tags: tuple[str, ...] = ()
    versions: dict[str, str]
    confidence: float
    cluster: str = ""
    ranges: dict[str, Range] = Field(default_factory=dict)
    price: Price | None
    samples: int
    unscored: int
    reasons: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    score: Estimate
    metrics: dict[str, dict[str, Estimate]]
    slices: dict[str, dict[str, Estimate]]
    between_tasks: float | None = Field(None, description="variance of the score between tasks")
    within_tasks: float | None = Field(None, description="variance between samples of one task")
    rows: tuple[Row, ...]

    _whole = model_validator(mode="before")(whole_characters)

    @property
    def unscored_share(self) -> float:
        """Share of samples without a verdict."""
        return self.unscored / self.samples if self.samples else 0.0

    @property
    def per_rule(self) -> dict[str, Estimate]:
        """The score by rule of the task."""
        return self.slices.get("rule", {})

    @property
    def tasks_text(self) -> str:
        """`300 tasks in 120 clusters (info.customer)`."""
        clusters = len({row.unit for row in self.rows})
        by = self.cluster or "the tasks' own"
        return f"{len(self.rows):,} tasks in {clusters:,} clusters ({by})"

    def limits(self, metric: str) -> Range | None:
        """What a task's value of a metric can be; None where nobody knows."""
        return limits_of(metric, self.ranges)

    def value(self, metric: str, env: str = "all") -> float | None:
        """A metric's mean; `env` is `all` or an environment's label."""
        return self.metrics[metric][env].mean

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path, *, rows: bool = True) -> "Report":
        """Read a report; a folder means the `report.json` in it. Without `rows`: only what was
        estimated from them, in a fraction of the time.

        Raises:
            DataError: missing, or not a report.
        """
        file = path / "report.json" if path.is_dir() else path
        try:
            text = read_text(file)
            head, mark, _ = text.partition(_ROWS)
            return cls.model_validate_json(f"{head}{mark}]}}" if mark and not rows else text)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise DataError(f"{file}: not a report: {where + ': ' if where else ''}{fault['msg']}") from None


def make_report(
    suite: Suite,
    suite_hash: str,
    rows: Sequence[Row],
    *,
    model: str,
    seed: int,
    started: str,
    ranges: Mapping[str, Range] | None = None,
) -> Report:
    """Estimate everything the suite asks for. `ranges` are the task list's, by default the suite's own.

    Raises:
        ConfigError: a metric that these rows do not have.
    """
    price = price_of(suite, model)
    ranges = suite.ranges if ranges is None else ranges
    for metric in suite.metrics:
        check_metric(metric, rows, price)
    split = variance_split([row.scored for row in rows])
    labels = list(dict.fromkeys(row.env for row in rows))
    wanted = dict.fromkeys(("score", *suite.metrics))
    metrics = {
        metric: {
            label: estimate_metric(
                _of(rows, label),
                metric,
                suite.confidence,
                price,
                limits_of(metric, ranges),
            )
            for label in ("all", *labels)
        }
        for metric in wanted
    }
    return Report(
        suite=suite.name,
        suite_hash=suite_hash,
        model=model,
        seed=seed,
        started=started,
        tags=suite.tags,
        versions=versions(),
        confidence=suite.confidence,
        cluster=suite.cluster,
        ranges=dict(ranges),
        price=price,
        samples=sum(len(row.scores) for row in rows),
        unscored=sum(len(row.scores) - len(row.scored) for row in rows),
        reasons=dict(Counter(reason for row in rows for reason in row.reasons).most_common(20)),
        prompt_tokens=sum(sum(row.prompt_tokens) for row in rows),
        completion_tokens=sum(sum(row.completion_tokens) for row in rows),
        cost=total_cost(rows, price),
        score=metrics["score"]["all"],
        metrics=metrics,
        slices=_slices(rows, suite.confidence, limits_of("score", ranges)),
        between_tasks=split and split.between,
        within_tasks=split and split.within,
        rows=tuple(rows),
    )


def estimate_metric(
    rows: Sequence[Row],
    metric: str,
    confidence: float = 0.95,
    price: Price | None = None,
    limits: Range | None = None,
) -> Estimate:
    """One metric over `rows`. Quantile metrics have a value and no error. `limits` is what a task's value can
    be; where one lies outside, nobody knows."""
    if is_quantile(metric):
        return Estimate(quantile(rows, metric), None, None, None, len(rows), 0, confidence, "quantile")
    values = values_of(rows, metric, price)
    return estimate(values, None if outside(values, limits) else limits, confidence)


def values_of(rows: Sequence[Row], metric: str, price: Price | None = None) -> ClusteredValues:
    """A metric of the rows that have it: clusters within environments, weights by environment."""
    return clustered(rows, task_values(rows, metric, price))


def clustered(rows: Sequence[Row], values: Mapping[tuple[str, str], float]) -> ClusteredValues:
    """The rows that have a value, by `Row.key`, as the statistics take them."""
    kept = [row for row in rows if row.key in values]
    return ClusteredValues.of(
        [values[row.key] for row in kept],
        [row.unit for row in kept],
        [row.weight for row in kept],
        [row.env for row in kept],
    )


def outside(values: ClusteredValues, limits: Range | None) -> float | None:
    """A value that cannot be."""
    if limits is None:
        return None
    low, high = limits
    wrong = values.value_N[(values.value_N < low - 1e-9) | (values.value_N > high + 1e-9)]
    return float(wrong[0]) if len(wrong) else None


def select(rows: Iterable[Row], env: str = "", slice_: str = "") -> list[Row]:
    """Rows of an environment and of a slice `name=value`.

    Raises:
        ConfigError: no row is left.
    """
    name, _, value = slice_.partition("=")
    kept = [
        row for row in rows if (not env or row.env == env) and (not slice_ or value in row.slices.get(name, ()))
    ]
    if not kept:
        raise ConfigError(f"no task in {', '.join(part for part in (env, slice_) if part)}")
    return kept


def versions() -> dict[str, str]:
    """Python and the packages a result may depend on."""
    found = {"python": platform.python_version()}
    for package in VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _of(rows: Sequence[Row], label: str) -> Sequence[Row]:
    return rows if label == "all" else [row for row in rows if row.env == label]


def _slices(rows: Sequence[Row], confidence: float, limits: Range | None) -> dict[str, dict[str, Estimate]]:
    """Score by slice name and value, values in alphabetical order."""
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        for name, values in row.slices.items():
            for value in values:
                groups.setdefault(name, {}).setdefault(value, []).append(row)
    return {
        name: {value: estimate_metric(of[value], "score", confidence, limits=limits) for value in sorted(of)}
        for name, of in groups.items()
    }
