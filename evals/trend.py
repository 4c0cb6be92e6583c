"""How a score moves over the weeks of a log: the slope of a line through the tasks' scores, with its error.

Tasks made of logged calls say the ISO week of the call (`info.week`); a suite with `slices = ["info.week"]` has
the score of each week, and this line through all of them. Its error counts clusters, not tasks: the sandwich
estimate of least squares (Liang & Zeger 1986), with t of G - 1 degrees of freedom for G clusters.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from math import sqrt

import numpy as np
import numpy.typing as npt
from scipy import stats

from vertigym.evals.metrics import Row

WEEK = "info.week"


@dataclass(frozen=True, slots=True)
class Trend:
    """The change of the mean score a week, its interval, and p for "no change". The bounds are None where there
    are fewer than three clusters."""

    slope: float
    low: float | None
    high: float | None
    p: float | None
    weeks: int

    def text(self) -> str:
        """`-0.8 points a week [-1.2, -0.4] over 9 weeks`."""
        points = f"{100 * self.slope:+.2f} points a week"
        if self.low is None or self.high is None:
            return f"{points} over {self.weeks} weeks (too few clusters for an interval)"
        return f"{points} [{100 * self.low:+.2f}, {100 * self.high:+.2f}] over {self.weeks} weeks"


def week_number(text: str) -> int:
    """`2026-W05` as a count of weeks, so that weeks of two years can be compared.

    Raises:
        ValueError: it is no week.
    """
    year, _, week = text.partition("-W")
    return date.fromisocalendar(int(year), int(week), 1).toordinal() // 7


def trend(rows: Iterable[Row], confidence: float = 0.95) -> Trend | None:
    """The line through the scores of the rows that say their week; None where they are of one week."""
    points = [
        (week_number(row.slices[WEEK][0]), float(np.mean(row.scored)), row.weight, " ".join(row.unit))
        for row in rows
        if WEEK in row.slices and row.scored
    ]
    if len({week for week, *_ in points}) < 2:
        return None
    week_N, score_N, weight_N = (np.array([point[i] for point in points], float) for i in range(3))
    week_N -= np.average(week_N, weights=weight_N)
    spread = float((weight_N * week_N**2).sum())
    slope = float((weight_N * week_N * score_N).sum()) / spread
    left_N = weight_N * week_N * (score_N - np.average(score_N, weights=weight_N) - slope * week_N)
    return Trend(slope, *_bounds(slope, spread, left_N, [p[3] for p in points], confidence), len(set(week_N)))


def _bounds(
    slope: float, spread: float, left_N: npt.NDArray[np.float64], units: Sequence[str], confidence: float
) -> tuple[float | None, float | None, float | None]:
    """The slope's interval and p; `left_N` are the tasks' parts of its error."""
    _, unit_N = np.unique(units, return_inverse=True)
    totals_G = np.bincount(unit_N, weights=left_N)
    groups = len(totals_G)
    error = sqrt(float((totals_G**2).sum()) * groups / max(1, groups - 1)) / spread
    if groups < 3 or error == 0:
        return None, None, None
    reach = float(stats.t.ppf((1 + confidence) / 2, groups - 1)) * error
    return slope - reach, slope + reach, float(2 * stats.t.sf(abs(slope) / error, groups - 1))
