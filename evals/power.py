"""What a suite can see: the smallest difference it would find, and the tasks a smaller one would take.

Planning uses Student's t around the clustered standard error of the paired difference; the error falls with
the square root of the tasks when the new tasks come in new clusters of the same size.
"""

import math

from scipy import optimize, stats


def power(difference: float, se: float, clusters: int, confidence: float = 0.95) -> float | None:
    """Chance that a two-sided interval at `confidence` lies above 0 when the true difference is `difference`:
    noncentral t with G-1 degrees of freedom (Lenth 2001, Am. Stat. 55:187). None with fewer than two clusters
    or no error to speak of."""
    if clusters < 2 or se <= 0:
        return None
    critical = stats.t.isf((1 - confidence) / 2, clusters - 1)
    return float(stats.nct.sf(critical, clusters - 1, difference / se))


def smallest_difference(
    se: float, clusters: int, confidence: float = 0.95, wanted: float = 0.8
) -> float | None:
    """The true difference that is found with chance `wanted`; None as for `power`."""
    if power(0.0, se, clusters, confidence) is None:
        return None
    free = clusters - 1
    guess = se * (stats.t.isf((1 - confidence) / 2, free) + stats.t.isf(1 - wanted, free))

    def shortfall(difference: float) -> float:
        found = power(difference, se, clusters, confidence)
        assert found is not None
        return found - wanted

    return float(optimize.brentq(shortfall, 0.0, 2 * guess))


def tasks_needed(
    difference: float, se: float, tasks: int, clusters: int, confidence: float = 0.95, wanted: float = 0.8
) -> int | None:
    """How many tasks would find a true `difference` with chance `wanted`, given the error `se` that `tasks`
    tasks in `clusters` clusters had. None as for `power`, and for a difference of 0 or less.

    The answer is the smallest number of clusters that suffices, times the present tasks per cluster.
    """
    if difference <= 0 or power(difference, se, clusters, confidence) is None:
        return None

    def enough(count: int) -> bool:
        found = power(difference, se * math.sqrt(clusters / count), count, confidence)
        return found is not None and found >= wanted

    high = 2
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return math.ceil(high * tasks / clusters)
