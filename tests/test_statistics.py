"""Statistics against closed forms, their own definitions, and statsmodels where it overlaps."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertigym.evals import power, sequential
from vertigym.evals.metrics import pass_at_k, pass_hat_k
from vertigym.evals.statistics import (
    Difference,
    Sample,
    bootstrap_interval,
    bootstrap_means,
    clustered_se,
    estimate,
    holm,
    mcnemar,
    mean,
    non_inferior,
    one_sided_p,
    paired_difference,
    shown_better,
    sign_flip,
    variance_split,
    wilson,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_error_of_tasks_of_their_own_is_the_usual_one(rng: np.random.Generator) -> None:
    values = rng.random(50)
    assert clustered_se(Sample.of(values)) == pytest.approx(values.std(ddof=1) / np.sqrt(50))


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
    assert clustered_se(Sample.of(values, clusters, weights)) == pytest.approx(expected)


def test_the_clustered_error_equals_statsmodels(rng: np.random.Generator) -> None:
    sm = pytest.importorskip("statsmodels.api")
    values, clusters, weights = rng.random(60), rng.integers(0, 12, 60), rng.random(60) + 0.1
    fit = sm.WLS(values, np.ones(60), weights=weights).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    sample = Sample.of(values, clusters, weights)
    assert mean(sample) == pytest.approx(fit.params[0])
    assert clustered_se(sample) == pytest.approx(fit.bse[0])


def test_strata_keep_their_share_and_add_their_variances(rng: np.random.Generator) -> None:
    a, b = rng.random(30), rng.random(80) + 1
    se = [x.std(ddof=1) / np.sqrt(len(x)) for x in (a, b)]
    weights = np.r_[np.full(30, 0.75 / 30), np.full(80, 0.25 / 80)]
    sample = Sample.of(np.r_[a, b], None, weights, ["a"] * 30 + ["b"] * 80)
    assert mean(sample) == pytest.approx(0.75 * a.mean() + 0.25 * b.mean())
    assert clustered_se(sample) == pytest.approx(np.hypot(0.75 * se[0], 0.25 * se[1]))
    drawn = bootstrap_means(sample, rng, 4000)
    assert drawn.mean() == pytest.approx(float(mean(sample) or 0), abs=0.002)
    assert drawn.std() == pytest.approx(clustered_se(sample), rel=0.06)


@pytest.mark.parametrize(
    ("values", "clusters", "strata"),
    [([], [], None), ([1.0], ["a"], None), ([1.0, 0.0], ["a", "a"], None), ([1.0, 0.0, 1.0], "abc", "xxy")],
)
def test_errors_are_undefined_without_two_clusters_a_stratum(
    values: list[float], clusters: list[str], strata: list[str] | None, rng: np.random.Generator
) -> None:
    sample = Sample.of(values, clusters, None, strata)
    assert clustered_se(sample) is None
    assert bootstrap_interval(sample, rng) is None
    assert sign_flip(sample, rng) is None
    found = estimate(sample, rng)
    assert (found.se, found.low, found.high) == (None, None, None)
    difference = paired_difference(values, values, rng, clusters=clusters, strata=strata)
    assert (difference.se, difference.low, difference.p) == (None, None, None)
    assert not shown_better(difference)
    assert not non_inferior(difference, 0.5)
    assert one_sided_p(difference, 0) is None


def test_values_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="leave out tasks that have no score"):
        Sample.of([1.0, float("nan")])
    with pytest.raises(ValueError, match="weights positive"):
        Sample.of([1.0, 2.0], None, [1.0, 0.0])
    with pytest.raises(ValueError, match="2 labels for 3 values"):
        Sample.of([1.0, 2.0, 3.0], ["a", "b"])


@given(st.integers(0, 200), st.integers(1, 200), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_statsmodels(successes: int, trials: int, confidence: float) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    successes = min(successes, trials)
    expected = proportion.proportion_confint(successes, trials, 1 - confidence, method="wilson")
    assert wilson(successes, trials, confidence) == pytest.approx(expected, abs=1e-12)


def test_wilson_of_nothing_is_undefined() -> None:
    assert wilson(0, 0) is None


def test_all_right_is_not_certain(rng: np.random.Generator) -> None:
    ten = estimate(Sample.of(np.ones(100), np.arange(100) % 10), rng)
    assert ten.low == pytest.approx(wilson(10, 10)[0])  # type: ignore[index]
    assert ten.high == pytest.approx(1.0)


def test_mcnemar_equals_statsmodels(rng: np.random.Generator) -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    for _ in range(20):
        a, b = rng.random(40) < 0.7, rng.random(40) < 0.5
        table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
        assert mcnemar(a, b) == pytest.approx(tables.mcnemar(table, exact=True).pvalue)
    assert mcnemar([1, 0], [1, 0]) == 1.0
    with pytest.raises(ValueError, match="0 and 1"):
        mcnemar([0.5], [1])


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 5))
def test_the_sign_flip_test_is_mcnemars_on_single_tasks(wins: int, losses: int, ties: int) -> None:
    delta = [1.0] * wins + [-1.0] * losses + [0.0] * (ties + 2)
    exact = mcnemar([d > 0 for d in delta], [d < 0 for d in delta])
    assert sign_flip(Sample.of(delta), np.random.default_rng(0)) == pytest.approx(exact)


def test_random_flips_come_near_all_flips(rng: np.random.Generator) -> None:
    sample = Sample.of(rng.normal(0.4, 1, 12))
    exact, drawn = sign_flip(sample, rng), sign_flip(sample, rng, exact_up_to=0)
    assert exact == pytest.approx(drawn, abs=0.025)


def test_whole_clusters_flip_together(rng: np.random.Generator) -> None:
    """Ten tasks that all differ the same way are one piece of evidence when they share a cluster."""
    delta = np.ones(20)
    assert sign_flip(Sample.of(delta), rng) == pytest.approx(1 / 4000, rel=0.01)
    assert sign_flip(Sample.of(delta, np.arange(20) % 3), rng) == pytest.approx(2 / 8)


def test_no_difference_anywhere_still_has_an_interval(rng: np.random.Generator) -> None:
    same = paired_difference(np.ones(98), np.ones(98), rng)
    assert same.mean == same.se == 0
    assert same.low == pytest.approx(-0.0196, abs=0.002)  # Agresti and Min's: 1.96 / (n + 2)
    assert same.p == 1


def test_wins_and_losses_are_counted_from_the_first(rng: np.random.Generator) -> None:
    difference = paired_difference([1, 1, 0, 1], [0, 1, 1, 0], rng)
    assert (difference.wins, difference.ties, difference.losses) == (2, 1, 1)
    assert difference.mean == 0.25


def test_the_paired_test_sees_what_an_unpaired_one_cannot(rng: np.random.Generator) -> None:
    stats = pytest.importorskip("scipy.stats")
    base = (rng.random(200) < 0.5).astype(float)
    better = np.where((base == 0) & (rng.random(200) < 0.1), 1.0, base)
    assert shown_better(paired_difference(better, base, rng))
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


def test_non_inferiority_and_its_p_value_agree_on_the_side() -> None:
    difference = Difference(-0.005, 0.005, -0.015, 0.005, 0.3, 200, 200, 1, 198, 1, 2)
    assert non_inferior(difference, 0.02)
    assert not non_inferior(difference, 0.01)
    assert one_sided_p(difference, -0.02) == pytest.approx(0.0015, abs=0.0002)


def test_power_equals_statsmodels() -> None:
    sm = pytest.importorskip("statsmodels.stats.power")
    expected = sm.TTestPower().power(0.05 / 0.2, 40, 0.05, alternative="larger")
    assert power.power(0.05, 0.2 / np.sqrt(40), 40, confidence=0.9) == pytest.approx(expected)


def test_smallest_difference_and_tasks_needed_invert_power() -> None:
    smallest = power.smallest_difference(0.02, 100)
    assert smallest is not None
    assert power.power(smallest, 0.02, 100) == pytest.approx(0.8)
    assert 100 <= (power.tasks_needed(smallest, 0.02, 100, 100) or 0) <= 101
    half = power.tasks_needed(smallest / 2, 0.02, 200, 100)
    assert half == pytest.approx(800, rel=0.03)
    assert power.power(0.1, 0.02, 1) is None
    assert power.smallest_difference(0.0, 50) is None
    assert power.tasks_needed(0.0, 0.02, 100, 100) is None


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
    noise = np.random.default_rng(1).normal(0, 0.3, 300)
    noise -= noise.mean()
    assert sequential.look(five, 1, Sample.of(noise + 0.2)).verdict == "better"
    assert sequential.look(five, 1, Sample.of(noise - 0.2)).verdict == "worse"
    assert sequential.look(five, 1, Sample.of(noise + 0.03)).verdict == "go on"
    assert sequential.look(five, 3, Sample.of(noise)).verdict == "futile"
    assert sequential.look(five, 4, Sample.of(noise + 0.03)).verdict == "futile"
    assert sequential.look(five, 0, Sample.of([1.0])).verdict == "go on"
