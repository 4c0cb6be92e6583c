"""Simulated evals for `benchmarks/gates.py`: what a gate must not pass, and what it should.

A cell draws many evals of one kind whose true value lies exactly at the bound of the gate, so that every pass
is an error. Clusters are draws from one population: a cluster's chances come first, then its tasks. What a draw
gives is the total of each cluster: nothing that is decided here needs more.

    even        tasks are won and lost alike; clusters lean to one side or the other
    tied        nearly all tasks are level
    skewed      nine clusters in ten gain a little, 8% lose much
    rare        one task in many is lost whole; for `improves`, the others gain a hair
    forgotten   a tenth of the clusters loses half a point a task, the others gain what is missing
    whole       a cluster is won, lost or level as a whole
    sized       large clusters lose a little, small ones gain
    envs        a tenth of the clusters, with half of the weight, gains what the other environment loses

Axes: B evals, G clusters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Floats = Any  # arrays; what numpy's stubs say of arithmetic differs from version to version
Sizes = Literal["even", "uneven", "zipf"]
KINDS = ("even", "tied", "skewed", "rare", "forgotten", "whole")
SHAPES = (
    (20, 3),
    (20, 20),
    (60, 12),
    (100, 20),
    (100, 100),
    (200, 25),
    (300, 3),
    (300, 20),
    (300, 60),
    (300, 300),
    (500, 5),
    (1000, 20),
    (1000, 300),
    (1000, 1000),
)
MARGINS = (0.0, 0.02, 0.05)  # of `improves`, of `not_worse`
THRESHOLDS = (0.9, 0.98)
ACCURACY = 0.6
NOMINAL, ALLOWED, ALLOWED_RUN = 0.025, 0.035, 0.05  # claimed of one look; shown at most; shown of a run


@dataclass(frozen=True, slots=True)
class Draws:
    """Totals of the challenger's and the champion's scores, and weights in tasks, by cluster: (B, G)."""

    first: Floats
    second: Floats
    size: Floats


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of eval. `value` is the true difference, or the true mean of a threshold's metric; `churn` the
    chance that a task is won or lost by accident; `paired` whether there is a champion."""

    kind: str
    tasks: int
    clusters: int
    sizes: Sizes = "even"
    value: float = 0.0
    churn: float = 0.08
    paired: bool = True

    @property
    def name(self) -> str:
        """`skewed 300/60 zipf`."""
        sizes = "" if self.sizes == "even" else f" {self.sizes}"
        return f"{self.kind} {self.tasks}/{self.clusters}{sizes}"

    def draw(self, rng: np.random.Generator, evals: int) -> Draws:
        """`evals` independent evals."""
        size: Floats = self._size(rng, evals)
        if not self.paired:
            right = rng.binomial(size, self._chance(rng, size.shape))
            return Draws(right * 1.0, np.zeros(size.shape), size * 1.0)
        win, lose, hair = self._moves(rng, size)
        lost = rng.binomial(size, lose)
        won = rng.binomial(size - lost, np.minimum(1.0, win / np.maximum(1 - lose, 1e-12)))
        both = rng.binomial(size - lost - won, ACCURACY) * 1.0
        weight = np.where(self._in_small_env(), 9.0, 1.0)
        return Draws(weight * (both + won + hair * (size - lost)), weight * (both + lost), weight * size)

    def _size(self, rng: np.random.Generator, evals: int) -> Floats:
        count, shape = self.clusters, (evals, self.clusters)
        if self.kind == "sized":
            small = max(1, self.tasks // (4 * count))
            return np.where(rng.random(shape) < 0.2, 16 * small, small)
        if self.sizes == "even":
            parts = np.full(shape, self.tasks / count)
        elif self.sizes == "zipf":
            parts = np.broadcast_to(1 / np.arange(1, count + 1), shape)
        else:
            parts = rng.lognormal(0, 1, shape)
        return np.maximum(1, np.round(parts / parts.sum(1, keepdims=True) * self.tasks)).astype(np.int64)

    def _in_small_env(self) -> Floats:
        """(G,)."""
        return (np.arange(self.clusters) < self.clusters / 10) & (self.kind == "envs")

    def _moves(self, rng: np.random.Generator, size: Floats) -> tuple[Floats, Floats, float]:
        """Chances that a task of a cluster is won, and lost, (B, G) each; and what the others gain."""
        value, shape = self.value, size.shape
        up, down, zero = max(value, 0.0), max(-value, 0.0), np.zeros(shape)
        match self.kind:
            case "even" | "tied":
                churn = self.churn if self.kind == "even" else 0.003
                lean = rng.uniform(-0.8, 0.8, shape)
                return churn * (1 + lean) + up, churn * (1 - lean) + down, 0.0
            case "skewed" | "forgotten":
                share, loss = (0.08, 0.8) if self.kind == "skewed" else (0.1, 0.5)
                hit = rng.random(shape) < share
                return np.where(hit, 0.0, (value + share * loss) / (1 - share)), np.where(hit, loss, 0.0), 0.0
            case "rare":
                loss = down or 0.02
                return zero, zero + loss, (value + loss) / (1 - loss)
            case "whole":
                where = rng.random(shape)
                return (where < 0.05 + up) * 1.0, (where > 0.95 - down) * 1.0, 0.0
            case "envs":
                gain = np.broadcast_to(np.where(self._in_small_env(), 0.05, 0.0), shape)
                return 0.05 + gain, 0.1 - value - gain, 0.0
            case _:
                large = size == size.max()
                return np.where(large, 0.0, 0.2 + value), np.where(large, 0.05 - value, 0.0), 0.0

    def _chance(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Each cluster's chance of a 1, whose mean is `value`."""
        mean = self.value
        match self.kind:
            case "even":
                return rng.beta(8 * mean, 8 * (1 - mean), shape)
            case "skewed" | "forgotten":
                share = 0.08 if self.kind == "skewed" else 0.1
                drop = min(mean, (1 - mean) * (1 - share) / share)
                return np.where(rng.random(shape) < share, mean - drop, mean + drop * share / (1 - share))
            case "whole":
                return (rng.random(shape) < mean) * 1.0
            case _:
                return np.full(shape, mean)


def at_the_bound() -> Iterator[tuple[str, float, Cell]]:
    """(rule, bound, cell) of every cell at whose bound a gate may err."""
    for margin in MARGINS:
        rule = "not_worse" if margin else "improves"
        for cell in _shaped(KINDS, value=-margin):
            yield rule, -margin, cell
        for kind in ("sized", "envs"):
            for tasks, clusters in ((100, 20), (300, 60), (1000, 300)):
                yield rule, -margin, Cell(kind, tasks, clusters, value=-margin)
    for threshold in THRESHOLDS:
        for cell in _shaped(("even", "tied", "skewed", "forgotten"), threshold, paired=False):
            yield "at_least", threshold, cell
        for cell in _shaped(("even", "tied", "whole"), 1 - threshold, paired=False):
            yield "at_most", 1 - threshold, cell


def _shaped(kinds: tuple[str, ...], value: float, paired: bool = True) -> Iterator[Cell]:
    for kind in kinds:
        for tasks, clusters in SHAPES:
            yield Cell(kind, tasks, clusters, value=value, paired=paired)
            if 3 < clusters < tasks:
                yield Cell(kind, tasks, clusters, "uneven", value=value, paired=paired)
                if paired:
                    yield Cell(kind, tasks, clusters, "zipf", value=value)


def of_any() -> Iterator[list[tuple[str, float, Cell]]]:
    """Gates of which any is enough, each at its bound: rules of a table, a suite's gates of all kinds."""
    for tasks, clusters in ((20, 20), (60, 60), (100, 20)):
        yield [("improves", 0.0, Cell("even", tasks, clusters))] * 5
        yield [("not_worse", -0.05, Cell("whole", tasks, clusters, value=-0.05))] * 5
    for tasks, clusters in ((100, 20), (100, 100), (300, 300)):
        yield [
            ("improves", 0.0, Cell("skewed", tasks, clusters)),
            ("not_worse", -0.02, Cell("rare", tasks, clusters, value=-0.02)),
            ("at_least", 0.9, Cell("tied", tasks, clusters, value=0.9, paired=False)),
            ("at_most", 0.1, Cell("tied", tasks, clusters, value=0.1, paired=False)),
        ]


def to_be_found() -> Iterator[tuple[str, float, Cell]]:
    """(rule, bound, cell) of cells that a gate should pass: a gain, no change, a metric past its threshold."""
    for tasks, clusters in ((100, 100), (300, 300), (1000, 1000), (300, 60), (1000, 100)):
        for churn in (0.02, 0.1):
            for gain in (0.02, 0.05, 0.1):
                yield "improves", 0.0, Cell("even", tasks, clusters, value=gain, churn=churn)
        for margin in (0.02, 0.05):
            for churn in (0.0, 0.01, 0.05):
                yield "not_worse", -margin, Cell("even", tasks, clusters, value=0.0, churn=churn)
        for threshold, value in ((0.5, 0.6), (0.9, 0.95)):
            yield "at_least", threshold, Cell("tied", tasks, clusters, value=value, paired=False)


@dataclass(frozen=True, slots=True)
class RunCell:
    """Runs of `looks` evals of one policy on the same tasks. `gain` is what it has gained by the last look,
    growing by its square root, or `soon`, in the first fifth; at 0 it never improves, and only luck promotes
    it.

    still      each look plays every task anew
    drift      each look plays one task in seven anew: what is seen changes slowly
    clusters   the same as still, but whole clusters of five lean to one side for a look
    hairs      at each look 2% of the tasks are lost whole and the others gain a hair
    """

    kind: str
    looks: int
    gain: float = 0.0
    tasks: int = 300
    soon: bool = False

    @property
    def clusters(self) -> int:
        """Clusters, of one task or of five."""
        return self.tasks // (5 if self.kind == "clusters" else 1)

    def draw(self, rng: np.random.Generator, runs: int) -> Iterator[Floats]:
        """Totals by cluster, (B, G), of the start and then of each look."""
        chance = rng.beta(1.2, 0.8, (runs, self.tasks))
        now = (rng.random(chance.shape) < chance) * 1.0
        yield self._totals(now)
        for look in range(1, self.looks + 1):
            passed = min(1.0, look / self.looks * (5 if self.soon else 1))
            gain = self.gain * np.sqrt(passed)
            now = self._next(rng, chance + (1 - chance) * gain / 0.4, now)
            yield self._totals(now)

    def _next(self, rng: np.random.Generator, chance: Floats, now: Floats) -> Floats:
        fresh = (rng.random(chance.shape) < chance) * 1.0
        match self.kind:
            case "drift":
                return np.where(rng.random(chance.shape) < 1 / 7, fresh, now)
            case "clusters":
                lean = np.repeat(rng.choice([-1, 1], (len(chance), self.clusters)), 5, axis=1)
                reach = np.minimum(chance, 1 - chance)
                return (rng.random(chance.shape) < chance + 0.6 * lean * reach) * 1.0
            case "hairs":
                lost = rng.random(chance.shape) < 0.02
                return np.where(lost, 0.0, fresh) + 0.02 / 0.98 * chance.mean() * ~lost
            case _:
                return fresh

    def _totals(self, now: Floats) -> Floats:
        return now.reshape(len(now), self.clusters, -1).sum(2)


def runs_without_gain() -> Iterator[RunCell]:
    """Runs in which every promotion is an error."""
    for kind in ("still", "drift", "clusters", "hairs"):
        for looks in (5, 10, 20, 50):
            yield RunCell(kind, looks)


def runs_with_gain() -> Iterator[RunCell]:
    """Runs that should promote something."""
    for kind in ("still", "drift", "clusters"):
        for looks in (5, 10, 20, 50):
            for gain in (0.05, 0.1):
                yield RunCell(kind, looks, gain)
            yield RunCell(kind, looks, 0.1, soon=True)
