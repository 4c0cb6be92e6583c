"""Metrics of a report row (one task) and of a set of rows.

A *task metric* has a value for each task, so that it has a clustered error and can be paired with a champion:

    score         mean over scored samples
    pass@k        chance that one of k samples succeeds; pass^k: that all do (score 1 is a success)
    tokens        completion tokens a sample; prompt_tokens likewise
    latency       seconds a sample
    cost          US dollars a sample, from the suite's price table
    unscored      share of samples without a verdict
    anything else is a part of the score, by name

A *quantile metric* (`latency_p50`, `latency_p95`, `tokens_p95`) is taken over all samples.
"""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import stats

from vertigym.core.errors import ConfigError
from vertigym.evals.suite import Price, Suite

LESS_IS_BETTER = re.compile(r"(latency|tokens|prompt_tokens|cost|unscored)(_p\d+)?")
_PASS = re.compile(r"pass([@^])(\d+)")
_QUANTILE = re.compile(r"(latency|tokens)_p(\d{1,2})")


class Row(BaseModel):
    """One task of a report; the lists hold one entry a sample, in order. A score of None is *not scored*."""

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


def is_quantile(metric: str) -> bool:
    """Whether `metric` is taken over all samples and has no value for a task."""
    return _QUANTILE.fullmatch(metric) is not None


def less_is_better(metric: str) -> bool:
    """Whether a decrease is a gain."""
    return LESS_IS_BETTER.fullmatch(metric) is not None


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
        case "cost":
            return None if price is None else _cost(row, price) / len(row.scores)
    if found := _PASS.fullmatch(metric):
        estimator = pass_at_k if found[1] == "@" else pass_hat_k
        wins = sum(score >= 1 - 1e-9 for score in row.scored)
        return estimator(wins, len(row.scored), int(found[2]))
    return row.parts.get(metric)


def quantile(rows: Iterable[Row], metric: str) -> float | None:
    """A quantile metric over all samples of `rows`."""
    found = _QUANTILE.fullmatch(metric)
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
    if not rows or is_quantile(metric) or any(task_value(row, metric, price) is not None for row in rows):
        return
    if metric == "score" or not any(row.scored for row in rows):
        return  # nothing scored: the unscored share says so
    if metric == "cost":
        raise ConfigError(
            "metric 'cost' needs a price: add [prices.\"MODEL\"] with input and output to the suite"
        )
    if _PASS.fullmatch(metric):
        most = max(len(row.scored) for row in rows)
        raise ConfigError(f"metric {metric!r} needs that many samples a task; this suite has {most}")
    parts = sorted({name for row in rows for name in row.parts})
    known = ["score", "pass@K", "pass^K", "tokens", "latency", "latency_p95", "cost", "unscored", *parts]
    raise ConfigError(f"no metric {metric!r}: there are {', '.join(known)}")


def _cost(row: Row, price: Price) -> float:
    return (sum(row.prompt_tokens) * price.input + sum(row.completion_tokens) * price.output) / 1e6


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
