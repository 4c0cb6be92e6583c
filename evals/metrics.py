"""Metrics of a report row (one task) and of a set of rows.

A *task metric* has a value for each task, so that it has a clustered error and can be paired with a champion:

    score         mean over scored samples
    pass@k        chance that one of k samples succeeds; pass^k: that all do (score 1 is a success)
    tokens        completion tokens a sample; prompt_tokens likewise
    latency       seconds a sample
    cost          US dollars a sample, from the suite's price table; cost_per_1000 of a thousand
    unscored      share of samples without a verdict
    macro_f1      the mean over true labels of F1, for environments that classify
    anything else is a part of the score, by name

Parts whose name ends in `_cost` are better when they are less. `macro_f1` belongs to a set of tasks; a task's
value is the set's F1 plus the task's influence on it (Hampel 1974), so that values average to the F1 exactly
and its errors and paired differences are those of any other metric (the delta method).

A *quantile metric* (`latency_p50`, `latency_p95`, `tokens_p95`) is taken over all samples.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator
from scipy import stats

from vertigym.core.errors import ConfigError
from vertigym.core.files import whole_characters
from vertigym.evals.mean_bounds import Range
from vertigym.evals.rules import QUANTILE, is_quantile
from vertigym.evals.suite import Price, Suite

LESS_IS_BETTER = re.compile(r"(latency|tokens|prompt_tokens|cost|unscored)(_p\d+)?|cost_per_1000|.+_cost")
MACRO_F1 = "macro_f1"
PASS = re.compile(r"pass([@^])(\d+)")


class Row(BaseModel):
    """One task of a report; the lists hold one entry a sample, in order. A score of None is *not scored*.
    `labels` are the (true, given) labels of the scored samples, in environments that classify."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str
    task: str
    digest: str
    cluster: str
    weight: float
    slices: dict[str, tuple[str, ...]]
    scores: tuple[float | None, ...]
    parts: dict[str, float]
    prompt_tokens: tuple[int, ...]
    completion_tokens: tuple[int, ...]
    latency_s: tuple[float, ...]
    reasons: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    _whole = model_validator(mode="before")(whole_characters)

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the task in every report of a suite."""
        return self.env, self.task

    @property
    def unit(self) -> tuple[str, str]:
        """What the task shares with others: its cluster, or itself where it has none."""
        return self.env, self.cluster or f"task {self.task}"

    @property
    def scored(self) -> list[float]:
        """The scores that are there."""
        return [score for score in self.scores if score is not None]


def less_is_better(metric: str) -> bool:
    """Whether a decrease is a gain."""
    return LESS_IS_BETTER.fullmatch(metric) is not None


def limits_of(metric: str, ranges: Mapping[str, Range]) -> Range | None:
    """What a task's value of `metric` can be: `ranges` where it is named, else 0 to 1; None for what has no
    upper limit (latency, cost) or none that is known (macro_f1)."""
    if metric in ranges:
        return ranges[metric]
    if metric != "unscored" and (metric == MACRO_F1 or less_is_better(metric)):
        return None
    return 0.0, 1.0


def task_value(row: Row, metric: str, price: Price | None = None) -> float | None:
    """The metric of one task; None where it is not defined (nothing scored, too few samples, no price)."""
    match metric:
        case "score":
            return _mean(row.scored)
        case "tokens":
            return _mean(row.completion_tokens)
        case "prompt_tokens":
            return _mean(row.prompt_tokens)
        case "latency":
            return _mean(row.latency_s)
        case "unscored":
            return 1 - len(row.scored) / len(row.scores)
        case "cost" | "cost_per_1000":
            calls = len(row.scores) / (1000 if metric == "cost_per_1000" else 1)
            return None if price is None else _cost(row, price) / calls
    if found := PASS.fullmatch(metric):
        estimator = pass_at_k if found[1] == "@" else pass_hat_k
        wins = sum(score >= 1 - 1e-9 for score in row.scored)
        return estimator(wins, len(row.scored), int(found[2]))
    return row.parts.get(metric)


def task_values(rows: Sequence[Row], metric: str, price: Price | None = None) -> dict[tuple[str, str], float]:
    """The metric of each task that has it, by `Row.key`."""
    if metric == MACRO_F1:
        return _macro_f1(rows)
    found = ((row.key, task_value(row, metric, price)) for row in rows)
    return {key: value for key, value in found if value is not None}


def _macro_f1(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    """Macro-F1 of `rows` over their true labels, plus each task's influence on it.

    F1 of a label is 2 Σ w·both / Σ w·(true + given) with a task's shares of samples; its derivative by the
    weight of task i is (2·both_i - F1·(true_i + given_i)) / Σ w·(true + given), with weights that sum to 1.
    """
    rows = [row for row in rows if row.labels]
    labels = sorted({true for row in rows for true, _ in row.labels})
    if not labels:
        return {}
    weight_N = np.array([row.weight for row in rows])
    weight_N = weight_N / weight_N.sum()
    both_NL, sum_NL = (np.array([[side(row, one) for one in labels] for row in rows]) for side in (_both, _sum))
    whole_L = weight_N @ sum_NL
    f1_L = 2 * (weight_N @ both_NL) / whole_L
    influence_NL = (2 * both_NL - f1_L * sum_NL) / whole_L
    values = f1_L.mean() + influence_NL.mean(axis=1)
    return {row.key: float(value) for row, value in zip(rows, values, strict=True)}


def _both(row: Row, label: str) -> float:
    """Share of samples that are truly and by the model `label`."""
    return sum(true == given == label for true, given in row.labels) / len(row.labels)


def _sum(row: Row, label: str) -> float:
    """Share of samples that are truly `label`, plus the share that was given it."""
    return sum((true == label) + (given == label) for true, given in row.labels) / len(row.labels)


def quantile(rows: Iterable[Row], metric: str) -> float | None:
    """A quantile metric over all samples of `rows`."""
    found = QUANTILE.fullmatch(metric)
    assert found, metric
    drawn = [v for row in rows for v in (row.latency_s if found[1] == "latency" else row.completion_tokens)]
    return float(np.quantile(drawn, int(found[2]) / 100)) if drawn else None


def pass_at_k(successes: int, samples: int, k: int) -> float | None:
    """Chance that at least one of `k` samples succeeds, unbiased: 1 - C(n-c, k)/C(n, k) (Chen et al. 2021,
    arXiv:2107.03374). None with fewer than k samples."""
    if samples < k:
        return None
    return float(1 - stats.hypergeom.pmf(0, samples, successes, k))


def pass_hat_k(successes: int, samples: int, k: int) -> float | None:
    """Chance that all of `k` samples succeed, unbiased: C(c, k)/C(n, k) (Yao et al. 2024, arXiv:2406.12045).
    None with fewer than k samples."""
    if samples < k:
        return None
    return float(stats.hypergeom.pmf(k, samples, successes, k))


def total_cost(rows: Iterable[Row], price: Price | None) -> float | None:
    """US dollars in all; None without a price."""
    return None if price is None else sum(_cost(row, price) for row in rows)


def price_of(suite: Suite, model: str) -> Price | None:
    """The first price whose pattern fits the model's name."""
    return next((price for pattern, price in suite.prices.items() if fnmatchcase(model, pattern)), None)


def check_metric(metric: str, rows: Sequence[Row], price: Price | None) -> None:
    """Refuse a metric that none of `rows` has.

    Raises:
        ConfigError: it is no metric of these rows (names those that are).
    """
    if not rows or is_quantile(metric) or task_values(rows, metric, price):
        return
    if metric == "score" or not any(row.scored for row in rows):
        return  # nothing scored: the unscored share says so
    if metric in ("cost", "cost_per_1000"):
        raise ConfigError(
            f'metric {metric!r} needs a price: add [prices."MODEL"] with input and output, or hour'
        )
    if PASS.fullmatch(metric):
        most = max(len(row.scored) for row in rows)
        raise ConfigError(f"metric {metric!r} needs that many samples a task; this suite has {most}")
    if metric == MACRO_F1:
        raise ConfigError("metric 'macro_f1' needs an environment that classifies (evidence 'label')")
    parts = sorted({name for row in rows for name in row.parts})
    known = [
        "score",
        "pass@K",
        "pass^K",
        "tokens",
        "latency",
        "latency_p95",
        "cost",
        "cost_per_1000",
        "unscored",
        *parts,
    ]
    raise ConfigError(f"no metric {metric!r}: there are {', '.join(known)}")


def _cost(row: Row, price: Price) -> float:
    tokens = sum(row.prompt_tokens) * price.input + sum(row.completion_tokens) * price.output
    return tokens / 1e6 + sum(row.latency_s) * price.hour / 3600


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
