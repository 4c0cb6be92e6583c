"""What a suite can see: the smallest difference it would find, and the tasks a smaller one would take.

A gate finds a difference that is larger than the distance from the mean to the lower end of its interval. That
distance is taken from what was measured. The spread in it falls with the square root of the clusters; the rest,
for what no cluster has shown yet, with their number.
"""

import math

from scipy import stats

from vertigym.evals.statistics import Difference


def power(effect: float, difference: Difference) -> float | None:
    """Chance that a comparison like this one shows a true difference of `effect` to lie above 0; None with
    fewer than two clusters or no error to speak of."""
    if not _is_known(difference):
        return None
    reach, se, free = _reach(difference)
    return float(stats.t.sf((reach - effect) / se, free))


def smallest_difference(difference: Difference, wanted: float = 0.8) -> float | None:
    """The true difference that is found with chance `wanted`; None as for `power`."""
    if not _is_known(difference):
        return None
    reach, se, free = _reach(difference)
    return reach + se * float(stats.t.isf(1 - wanted, free))


def tasks_needed(effect: float, difference: Difference, wanted: float = 0.8) -> int | None:
    """How many tasks would find a true difference of `effect` with chance `wanted`, in clusters like these;
    None as for `power`, and for an effect of 0 or less."""
    if effect <= 0 or not _is_known(difference):
        return None
    reach, se, free = _reach(difference)
    spread = se * float(stats.t.isf((1 - difference.confidence) / 2, free))
    unseen = max(0.0, reach - spread)
    falling = spread + se * float(stats.t.isf(1 - wanted, free))
    # unseen x² + falling x = effect, where x² is how many times fewer clusters there are now
    root = (math.sqrt(falling**2 + 4 * unseen * effect) + falling) / (2 * effect)
    return math.ceil(difference.tasks * root**2)


def _is_known(difference: Difference) -> bool:
    return difference.clusters > 1 and bool(difference.se) and difference.low is not None


def _reach(difference: Difference) -> tuple[float, float, int]:
    """Mean to lower end, standard error, degrees of freedom."""
    assert difference.mean is not None
    assert difference.low is not None
    assert difference.se is not None
    return difference.mean - difference.low, difference.se, difference.clusters - 1
