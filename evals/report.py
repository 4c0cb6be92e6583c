"""Report: what a suite measured of one model, task by task, and the estimates made from it.

A report is a pure function of its rows and settings: the same rows give the same numbers, to the bit.
"""

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import read_text, write_text
from vertigym.core.seeds import generator
from vertigym.evals.metrics import (
    MACRO_F1,
    Row,
    check_metric,
    is_quantile,
    less_is_better,
    price_of,
    quantile,
    task_values,
    total_cost,
)
from vertigym.evals.statistics import Estimate, Sample, estimate, variance_split
from vertigym.evals.suite import Price, Suite

VERSIONED = ("vertigym", "numpy", "scipy", "gymnasium", "transformers", "torch", "zen-engine")


class Report(BaseModel):
    """A suite's result for one model.

    `metrics` holds every metric asked for, overall and by environment; `slices` the score by slice name and
    value (`slices["rule"]["late-return"]`). `unscored` counts samples without a verdict, by reason.
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

    @property
    def unscored_share(self) -> float:
        """Share of samples without a verdict."""
        return self.unscored / self.samples if self.samples else 0.0

    @property
    def per_rule(self) -> dict[str, Estimate]:
        """The score by rule of the task."""
        return self.slices.get("rule", {})

    def value(self, metric: str, env: str = "all") -> float | None:
        """A metric's mean; `env` is `all` or an environment's label."""
        return self.metrics[metric][env].mean

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Report":
        """Read a report; a folder means the `report.json` in it.

        Raises:
            DataError: missing, or not a report.
        """
        file = path / "report.json" if path.is_dir() else path
        try:
            return cls.model_validate_json(read_text(file))
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise DataError(f"{file}: not a report: {where + ': ' if where else ''}{fault['msg']}") from None


def make_report(
    suite: Suite, suite_hash: str, rows: Sequence[Row], *, model: str, seed: int, started: str
) -> Report:
    """Estimate everything the suite asks for.

    Raises:
        ConfigError: a metric that these rows do not have.
    """
    price = price_of(suite, model)
    for metric in suite.metrics:
        check_metric(metric, rows, price)
    split = variance_split([row.scored for row in rows])
    labels = list(dict.fromkeys(row.env for row in rows))
    wanted = dict.fromkeys(("score", *suite.metrics))
    metrics = {
        metric: {
            label: estimate_metric(_of(rows, label), metric, suite.confidence, price)
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
        price=price,
        samples=sum(len(row.scores) for row in rows),
        unscored=sum(len(row.scores) - len(row.scored) for row in rows),
        reasons=dict(Counter(reason for row in rows for reason in row.reasons).most_common(20)),
        prompt_tokens=sum(sum(row.prompt_tokens) for row in rows),
        completion_tokens=sum(sum(row.completion_tokens) for row in rows),
        cost=total_cost(rows, price),
        score=metrics["score"]["all"],
        metrics=metrics,
        slices=_slices(rows, suite.confidence),
        between_tasks=split and split.between,
        within_tasks=split and split.within,
        rows=tuple(rows),
    )


def estimate_metric(
    rows: Sequence[Row], metric: str, confidence: float = 0.95, price: Price | None = None
) -> Estimate:
    """One metric over `rows`, with environments as strata. Quantile metrics have a value and no error."""
    if is_quantile(metric):
        return Estimate(quantile(rows, metric), None, None, None, len(rows), 0, confidence, "quantile")
    values = task_values(rows, metric, price)
    kept = [row for row in rows if row.key in values]
    rng = generator(0, "interval", metric)
    share = metric == "unscored" or not (less_is_better(metric) or metric == MACRO_F1)
    return estimate(sample_of(kept, lambda row: values[row.key]), rng, confidence, share=share)


def sample_of(rows: Sequence[Row], value: Callable[[Row], float]) -> Sample:
    """Rows as the statistics take them: clusters within environments, weights by environment."""
    return Sample.of(
        [value(row) for row in rows],
        [row.unit for row in rows],
        [row.weight for row in rows],
        [row.env for row in rows],
    )


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


def _slices(rows: Sequence[Row], confidence: float) -> dict[str, dict[str, Estimate]]:
    """Score by slice name and value, values in alphabetical order."""
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        for name, values in row.slices.items():
            for value in values:
                groups.setdefault(name, {}).setdefault(value, []).append(row)
    return {
        name: {value: estimate_metric(of[value], "score", confidence) for value in sorted(of)}
        for name, of in groups.items()
    }
