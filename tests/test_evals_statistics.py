"""Statistics against closed forms, their own definitions, and statsmodels where it overlaps."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vertigym.evals import power, sequential
from vertigym.evals.clustered import ClusteredValues, clustered_se, mean
from vertigym.evals.mean_bounds import chance_not_above_0, interval, least_clusters, p_above
from vertigym.evals.metrics import pass_at_k, pass_hat_k
from vertigym.evals.statistics import (
    Difference,
    difference_of,
    estimate,
    holm,
    variance_split,
)

values_of = ClusteredValues.of


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_error_of_tasks_of_their_own_is_the_usual_one(rng: np.random.Generator) -> None:
    values = rng.random(50)
    assert clustered_se(values_of(values)) == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_the_clustered_error_equals_its_pairwise_definition(rng: np.random.Generator) -> None:
    """Σ over all pairs of tasks that share a cluster of the product of their deviations."""
    values, clusters, weights = rng.random(40), rng.integers(0, 9, 40), rng.random(40) + 0.1
    deviation = weights * (values - np.average(values, weights=weights))
    pairs = sum(
        deviation[i] * deviation[j]
        for i, j in itertools.product(range(40), repeat=2)
        if clusters[i] == clusters[j]
    )
    expected = np.sqrt(pairs * 9 / 8) / weights.sum()
    assert clustered_se(values_of(values, clusters, weights)) == pytest.approx(expected)


def test_the_clustered_error_equals_statsmodels(rng: np.random.Generator) -> None:
    sm = pytest.importorskip("statsmodels.api")
    values, clusters, weights = rng.random(60), rng.integers(0, 12, 60), rng.random(60) + 0.1
    fit = sm.WLS(values, np.ones(60), weights=weights).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    sample = values_of(values, clusters, weights)
    assert mean(sample) == pytest.approx(fit.params[0])
    assert clustered_se(sample) == pytest.approx(fit.bse[0])


def test_strata_keep_their_share_and_add_their_variances(rng: np.random.Generator) -> None:
    a, b = rng.random(30), rng.random(80) + 1
    se = [x.std(ddof=1) / np.sqrt(len(x)) for x in (a, b)]
    weights = np.r_[np.full(30, 0.75 / 30), np.full(80, 0.25 / 80)]
    sample = values_of(np.r_[a, b], None, weights, ["a"] * 30 + ["b"] * 80)
    assert mean(sample) == pytest.approx(0.75 * a.mean() + 0.25 * b.mean())
    assert clustered_se(sample) == pytest.approx(np.hypot(0.75 * se[0], 0.25 * se[1]))


@pytest.mark.parametrize(
    ("values", "clusters", "strata"),
    [([], [], None), ([1.0], ["a"], None), ([1.0, 0.0], ["a", "a"], None), ([1.0, 0.0, 1.0], "abc", "xxy")],
)
def test_errors_are_undefined_without_two_clusters_a_stratum(
    values: list[float], clusters: list[str], strata: list[str] | None
) -> None:
    sample = values_of(values, clusters, None, strata)
    assert clustered_se(sample) is None
    unlimited = estimate(sample, None)
    assert (unlimited.se, unlimited.low, unlimited.high) == (None, None, None)
    difference = difference_of(sample, None)
    assert (difference.se, difference.low, difference.p) == (None, None, None)
    assert p_above(sample, 0, None) is None


def test_nothing_is_known_of_no_task_and_next_to_nothing_of_one_cluster() -> None:
    assert interval(values_of([]), (0, 1), 0.95) is None
    assert interval(values_of([1.0, 1.0], "aa"), (0, 1), 0.95) == pytest.approx((0.025, 1.0))


def test_values_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="leave out tasks that have no score"):
        values_of([1.0, float("nan")])
    with pytest.raises(ValueError, match="weights positive"):
        values_of([1.0, 2.0], None, [1.0, 0.0])
    with pytest.raises(ValueError, match="2 labels for 3 values"):
        values_of([1.0, 2.0, 3.0], ["a", "b"])


@given(st.integers(0, 200), st.integers(1, 200), st.sampled_from([0.8, 0.95, 0.99]))
def test_of_shares_the_interval_is_clopper_and_pearsons(right: int, tasks: int, confidence: float) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    right = min(right, tasks)
    found = interval(values_of([1.0] * right + [0.0] * (tasks - right)), (0, 1), confidence)
    assert found == pytest.approx(proportion.proportion_confint(right, tasks, 1 - confidence, "beta"), abs=1e-6)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 9))
def test_of_paired_shares_the_p_value_is_mcnemars(wins: int, losses: int, ties: int) -> None:
    delta = [1.0] * wins + [-1.0] * losses + [0.0] * (ties + 2)
    one_sided = stats.binom.sf(wins - 1, wins + losses, 0.5)
    assert p_above(values_of(delta), 0.0, -1.0) == pytest.approx(one_sided)
    exact = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert difference_of(values_of(delta)).p == pytest.approx(exact)


def test_of_equal_values_there_is_a_closed_form() -> None:
    """((bound - least) / (value - least))^G, also for the number of clusters that it takes."""
    for value, bound, count in [(1.0, 0.0, 6), (0.0, -0.02, 183), (0.5, 0.0, 3), (0.3, 0.0, 14)]:
        p = p_above(values_of([value] * count), bound, -1.0)
        assert p == pytest.approx(((bound + 1) / (value + 1)) ** count)
    assert least_clusters(0.0, (-1, 1), 0.025) == 6
    assert least_clusters(-0.02, (-1, 1), 0.025, best=0.0) == 183
    assert least_clusters(0.95, (0, 1), 0.025) == 72
    assert least_clusters(0.0, (-1, 1), 0.025, best=0.0) == 0


@pytest.mark.parametrize("count", [1, 2, 7, 60, 900])
def test_the_chance_equals_what_is_drawn(count: int, rng: np.random.Generator) -> None:
    parts = np.append(rng.normal(2 / math.sqrt(count), 1, count), -rng.exponential(3))
    drawn = (rng.standard_exponential((20_000, count + 1)) @ parts <= 0).mean()
    assert chance_not_above_0(parts, np.ones(count + 1, int)) == pytest.approx(drawn, abs=0.015)


def test_the_chance_is_exact_however_unlike_the_parts_are() -> None:
    """One negative part: Π (1 + part / |it|)^-count. Thousands of hairs beside one whole loss, for example."""
    for parts, counts in [([1e-4, 1.0], [5000, 3]), ([1e-3], [4999]), ([0.5, 1e-6, 0.01], [4, 100_000, 300])]:
        exact = math.exp(-sum(n * math.log1p(part) for part, n in zip(parts, counts, strict=True)))
        found = chance_not_above_0(np.array([*parts, -1.0]), np.array([*counts, 1]))
        assert found == pytest.approx(exact, rel=1e-6)


def test_many_clusters_give_students_interval(rng: np.random.Generator) -> None:
    values = values_of(rng.normal(0, 0.2, 4000).clip(-1, 1))
    ours, students = interval(values, (-1, 1), 0.95), interval(values, None, 0.95)
    assert ours == pytest.approx(students, abs=0.0015)


def test_an_end_of_the_interval_is_where_the_test_says_so(rng: np.random.Generator) -> None:
    values = values_of(rng.random(50) ** 2, rng.integers(0, 20, 50), rng.random(50) + 0.5)
    low, high = interval(values, (0, 1), 0.9) or (0, 0)
    assert p_above(values, low, 0.0) == pytest.approx(0.05, rel=1e-3)
    assert p_above(values.mirrored(), -high, -1.0) == pytest.approx(0.05, rel=1e-3)


def test_a_wider_range_shows_less_and_whole_clusters_count_once(rng: np.random.Generator) -> None:
    values = values_of(rng.random(60))
    assert (interval(values, (-1, 1), 0.95) or (0,))[0] < (interval(values, (0, 1), 0.95) or (0,))[0]
    alike = p_above(values_of(np.ones(20), np.arange(20) % 3), 0.0, -1.0)
    assert alike == pytest.approx(p_above(values_of(np.ones(3)), 0.0, -1.0), rel=0.3)


def test_the_worst_that_was_not_seen_weighs_as_much_as_the_heaviest_cluster() -> None:
    even = p_above(values_of(np.zeros(100), np.arange(100) % 50), -0.05, -1.0)
    one_large = p_above(values_of(np.zeros(100), np.maximum(0, np.arange(100) - 50)), -0.05, -1.0)
    assert even == pytest.approx(0.95**50)
    assert one_large == pytest.approx((1 + 0.05 / 0.95) ** -1 * (1 + 0.05 / 0.95 / 51) ** -49)


def test_wins_and_losses_are_counted_from_the_first() -> None:
    difference = difference_of(values_of(np.subtract([1, 1, 0, 1], [0, 1, 1, 0])))
    assert (difference.wins, difference.ties, difference.losses) == (2, 1, 1)
    assert difference.mean == 0.25


def test_the_paired_test_sees_what_an_unpaired_one_cannot(rng: np.random.Generator) -> None:
    base = (rng.random(200) < 0.5).astype(float)
    better = np.where((base == 0) & (rng.random(200) < 0.1), 1.0, base)
    low = difference_of(values_of(better - base)).low
    assert low is not None
    assert low > 0
    assert stats.ttest_ind(better, base).pvalue > 0.05


def test_the_variance_splits_into_its_parts(rng: np.random.Generator) -> None:
    tasks = rng.normal(0, 2, 3000)
    split = variance_split(tasks[:, None] + rng.normal(0, 1, (3000, 4)))  # type: ignore[arg-type]
    assert split is not None
    assert split.between == pytest.approx(4, rel=0.1)
    assert split.within == pytest.approx(1, rel=0.1)
    assert split.se(100, 4) == pytest.approx(np.sqrt(4.25 / 100), rel=0.05)
    assert variance_split([[1.0], [0.0], [1.0, 0.0]]) is None
    assert variance_split([[0.0, 1.0], [1.0, 0.0]]).between == 0  # type: ignore[union-attr]


def test_holm_equals_statsmodels(rng: np.random.Generator) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for count in (1, 2, 5, 8, 30):
        p_values = list(rng.random(count) ** 3)
        assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (4, 0, 2), (4, 4, 4), (6, 3, 2)])
def test_pass_at_k_counts_all_choices(n: int, c: int, k: int) -> None:
    draws = list(itertools.combinations([1] * c + [0] * (n - c), k))
    assert pass_at_k(c, n, k) == pytest.approx(sum(any(d) for d in draws) / len(draws))
    assert pass_hat_k(c, n, k) == pytest.approx(sum(all(d) for d in draws) / len(draws))
    assert pass_at_k(c, n, n + 1) is None
    assert pass_hat_k(c, n, n + 1) is None


def test_smallest_difference_and_tasks_needed_invert_power(rng: np.random.Generator) -> None:
    for values in (rng.choice([-1.0, 0, 1], 200, p=[0.05, 0.85, 0.1]), rng.normal(0.02, 0.1, 40).clip(-1, 1)):
        found = difference_of(values_of(values))
        smallest = power.smallest_difference(found)
        assert smallest is not None
        assert power.power(smallest, found) == pytest.approx(0.8)
        assert power.tasks_needed(smallest, found) == pytest.approx(found.tasks, abs=1)
        assert found.tasks * 2 < (power.tasks_needed(smallest / 2, found) or 0) <= found.tasks * 4 + 1


def test_nothing_is_planned_from_nothing() -> None:
    flat = Difference(0.0, 0.0, -0.1, 0.1, 1.0, 50, 50, 0, 50, 0, 0)
    assert (power.power(0.1, flat), power.smallest_difference(flat)) == (None, None)
    assert power.tasks_needed(0.0, difference_of(values_of([1.0, 0.0, 0.5]))) is None


def test_the_bounds_of_five_looks_are_the_published_ones() -> None:
    """Lan-DeMets with O'Brien-Fleming-like spending, one-sided 2.5%: gsDesign's `sfLDOF` prints these."""
    bounds = sequential.spending_bounds([0.2, 0.4, 0.6, 0.8, 1.0], 0.025)
    assert bounds == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=0.001)


def test_one_look_is_the_plain_test() -> None:
    assert sequential.plan(1).bounds == pytest.approx((1.96,), abs=0.001)
    with pytest.raises(ValueError, match="looks >= 1"):
        sequential.plan(0)


def test_looks_say_better_worse_futile_or_go_on() -> None:
    five = sequential.plan(5)
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 300)
    noise -= noise.mean()
    assert sequential.look(five, 1, values_of(noise + 0.2)).verdict == "better"
    assert sequential.look(five, 1, values_of(noise - 0.2)).verdict == "worse"
    assert sequential.look(five, 1, values_of(noise + 0.03)).verdict == "go on"
    assert sequential.look(five, 3, values_of(noise)).verdict == "futile"
    assert sequential.look(five, 4, values_of(noise + 0.03)).verdict == "futile"
    assert sequential.look(five, 0, values_of([1.0])).verdict == "go on"
