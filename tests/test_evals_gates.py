"""Gates decide on evidence, say why, and keep every number."""

from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from vertigym.core.errors import ConfigError
from vertigym.core.seeds import generator
from vertigym.envs.env import SingleTurnEnv
from vertigym.envs.tasks import TaskSet
from vertigym.evals import rules
from vertigym.evals.gate import combine, decide
from vertigym.evals.rules import Gate, Measured, Paired, Verdict
from vertigym.evals.suite import task_list
from vertigym.rewards.rubric import Rubric
from vertigym.trainer.config import EvalConfig
from vertigym.trainer.gatekeeper import error_of_a_look

from .gate_reports import IMPROVES, NOT_WORSE, Score, five_rules, report, right_below, suite


def in_r2_below(count: int) -> Score:
    return lambda i: float(i % 4 == 2 and i < count)


def test_a_clear_gain_improves_and_the_reason_has_the_numbers() -> None:
    decision = decide(suite(IMPROVES), report(right_below(150)), report(right_below(100), model="old"), step=20)
    assert decision.passed
    assert decision.verdict == "promoted"
    assert "0.750 against 0.500, difference +0.250 [" in decision.reason
    assert decision.context == {"step": 20}
    check = decision.checks[1]
    assert check.difference is not None
    assert (check.difference.wins, check.difference.losses) == (50, 0)
    assert decision.champion == "old"


def test_a_small_gain_is_not_shown_and_the_reason_says_what_could_be() -> None:
    def noisy(salt: str, share: float) -> Score:
        return lambda i: float(generator(salt, i).random() < share)

    decision = decide(suite(IMPROVES), report(noisy("a", 0.52)), report(noisy("b", 0.5)))
    assert not decision.passed
    assert "not shown to be better" in decision.reason
    assert "this comparison sees 0.1" in decision.reason


def test_the_bound_of_a_margin_is_recorded_on_its_own_side() -> None:
    pair = report(right_below(100)), report(right_below(100))
    (_, check) = decide(suite(NOT_WORSE), *pair).checks
    assert check.bound == -0.02
    (_, check) = decide(suite({**IMPROVES, "margin": 0.1}), report(right_below(150)), pair[1]).checks
    assert (check.bound, check.passed) == (0.1, True)
    assert not decide(suite({**IMPROVES, "margin": 0.2}), report(right_below(150)), pair[1]).passed


def test_a_loss_is_called_worse() -> None:
    assert ": worse: " in decide(suite(IMPROVES), report(right_below(50)), report(right_below(100))).reason
    assert ": worse: " in decide(suite(NOT_WORSE), report(right_below(50)), report(right_below(100))).reason


@pytest.mark.parametrize(("tasks", "passes"), [(183, True), (182, False), (100, False), (20, False)])
def test_agreeing_everywhere_proves_little_on_a_small_suite(tasks: int, passes: bool) -> None:
    """No loss in 100 tasks leaves room for 3.6 points (the rule of three, exactly)."""
    same = report(right_below(10), tasks=tasks, clusters=tasks)
    assert decide(suite(NOT_WORSE), same, same).passed is passes
    assert not decide(suite(IMPROVES), same, same).passed


def test_four_wins_without_a_loss_are_not_enough() -> None:
    """The exact test says p = 1/8; a percentile interval alone would have promoted."""
    assert not decide(suite(IMPROVES), report(right_below(104)), report(right_below(100))).passed
    assert decide(suite(IMPROVES), report(right_below(108)), report(right_below(100))).passed


def test_one_cluster_can_prove_nothing() -> None:
    decision = decide(suite(IMPROVES), report(right_below(200), clusters=1), report(right_below(0), clusters=1))
    assert not decision.passed
    assert "too few: 2 clusters could pass no policy here, it takes about 6" in decision.reason
    assert decision.checks[1].too_few


def test_thresholds_are_held_against_the_end_of_the_interval() -> None:
    half = report(right_below(100))
    for rule, threshold, passes in [
        ("at_least", 0.4, True),
        ("at_least", 0.49, False),
        ("at_most", 0.6, True),
        ("at_most", 0.51, False),
    ]:
        assert decide(suite({"rule": rule, "threshold": threshold}), half).passed is passes


def test_budgets_are_quantiles_of_samples_or_means_of_tasks() -> None:
    one = report(right_below(100))  # latencies 0.00 to 1.99 s, 5 to 7 tokens
    assert decide(suite({"rule": "at_most", "metric": "latency_p95", "threshold": 1.9}), one).passed
    assert not decide(suite({"rule": "at_most", "metric": "latency_p95", "threshold": 1.8}), one).passed
    assert decide(suite({"rule": "at_most", "metric": "tokens", "threshold": 6.2}), one).passed


def test_fewer_tokens_are_an_improvement() -> None:
    short, long = report(right_below(100), tokens=5), report(right_below(100), tokens=9)
    gate = {"rule": "improves", "metric": "tokens"}
    assert decide(suite(gate), short, long).passed
    assert not decide(suite(gate), long, short).passed
    assert decide(suite(gate), short, long).checks[1].value == pytest.approx(5.995)


def test_a_gate_on_a_slice_sees_only_that_slice() -> None:
    forgets_r1 = report(lambda i: float(i % 4 != 1))
    before = report(lambda i: float(i % 4 == 1))
    assert decide(suite(IMPROVES), forgets_r1, before).passed
    rejected = decide(
        suite(IMPROVES, {"rule": "not_worse", "margin": 0.1, "slice": "rule"}), forgets_r1, before
    )
    assert not rejected.passed
    assert rejected.reason.startswith("not_worse(0.1) on score of rule=r1: worse: 0.000 against 1.000")
    assert len(rejected.checks) == 6
    env = {**IMPROVES, "env": "f"}
    difference = decide(suite(env), forgets_r1, before).checks[1].difference
    assert difference is not None
    assert difference.tasks == 100


def test_any_needs_one_gate_and_pays_for_the_choice() -> None:
    champion = report(lambda i: 0.0)
    for wins, alone, chosen_of_four in [(9, True, True), (6, True, False), (5, False, False)]:
        challenger = report(in_r2_below(4 * wins))
        assert decide(suite({**IMPROVES, "slice": "rule=r2"}), challenger, champion).passed is alone
        each = {**IMPROVES, "slice": "rule"}
        assert not decide(suite(each), challenger, champion).passed
        decision = decide(suite(each, combine="any"), challenger, champion)
        assert decision.passed is chosen_of_four
        r2 = next(check for check in decision.checks if "r2" in check.gate)
        assert r2.p is not None
        assert r2.p_adjusted == pytest.approx(4 * r2.p)


def test_tasks_not_scored_in_one_report_leave_the_pair() -> None:
    holes = report(lambda i: None if i in (3, 4) else 1.0)
    decision = decide(suite(IMPROVES), holes, report(lambda i: None if i == 5 else 0.0))
    assert decision.checks[1].difference is not None
    assert decision.checks[1].difference.tasks == 197


def test_a_changed_suite_is_never_compared() -> None:
    other = report(right_below(5)).model_copy(update={"suite_hash": "other", "model": "old"})
    with pytest.raises(ConfigError, match="old on s other: the tasks, samples or sampling differ"):
        decide(suite(IMPROVES), report(right_below(5)), other)


def test_gates_that_cannot_be_applied_say_so() -> None:
    one = report(right_below(5))
    faults: list[tuple[list[Mapping[str, object]], str]] = [
        ([], "no \\[\\[gate\\]\\]"),
        ([IMPROVES], "compares with a champion"),
        ([{**IMPROVES, "env": "g"}], "no task in g"),
        ([{"rule": "at_least", "threshold": 1, "metric": "hafl"}], "no metric 'hafl'"),
        ([{**IMPROVES, "slice": "tier"}], "no task has a slice 'tier'"),
    ]
    for gates, message in faults:
        with pytest.raises(ConfigError, match=message):
            decide(suite(*gates), one)


def test_small_losses_cannot_add_up_against_the_start() -> None:
    gate = {"rule": "not_worse", "margin": 0.1, "against": "start"}
    start, champion, challenger = (report(right_below(n)) for n in (150, 140, 130))
    assert decide(suite({**gate, "against": "champion"}), challenger, champion, start=start).passed
    rejected = decide(suite(gate), challenger, champion, start=start)
    assert not rejected.passed
    assert rejected.reason.startswith("not_worse(0.1) on score against the start: worse: 0.650 against 0.750")
    assert decide(
        suite(gate), challenger, champion
    ).passed  # outside training there is only one to compare with
    with pytest.raises(ConfigError, match="run both on one suite"):
        decide(suite(gate), challenger, champion, start=start.model_copy(update={"suite_hash": "x"}))


def test_several_suites_must_all_pass() -> None:
    good = decide(suite(IMPROVES), report(right_below(150)), report(right_below(100)))
    bad = decide(suite(NOT_WORSE, name="other"), report(right_below(50)), report(right_below(100)))
    assert combine([good]) == (True, good.reason)
    passed, reason = combine([good, bad])
    assert not passed
    assert reason.startswith("suite other: not_worse(0.02) on score: worse")


def test_decisions_repeat_and_survive_json() -> None:
    pair = report(right_below(150)), report(right_below(100))
    first = decide(suite(IMPROVES), *pair)
    assert first == decide(suite(IMPROVES), *pair)
    assert type(first).model_validate_json(first.model_dump_json()) == first


def test_thresholds_pay_for_the_choice_too() -> None:
    """97 of 100 right shows 0.9 at p = 0.008 alone, and not as one of four."""
    one = report(lambda i: float(i >= 3), tasks=100, clusters=100)
    gate = {"rule": "at_least", "threshold": 0.9}
    assert decide(suite(gate), one).passed
    others: list[Mapping[str, object]] = [{"rule": "at_least", "threshold": 0.99}, IMPROVES]
    others += [{"rule": "at_most", "threshold": 0.5}]
    decision = decide(suite(gate, *others, combine="any"), one, one)
    assert not decision.passed
    alone = decide(suite(gate), one).checks[1].p
    assert alone is not None
    assert decision.checks[1].p_adjusted == pytest.approx(4 * alone)


def test_a_slice_names_the_values_that_have_too_few_tasks() -> None:
    """Each rule's own cases; what is said of single rules is adjusted over all of them."""
    rare = report(lambda i: 1.0, tasks=200, clusters=200)
    rows = [
        row.model_copy(update={"slices": {"rule": ("r9" if i < 9 else "r0",)}})
        for i, row in enumerate(rare.rows)
    ]
    one = rare.model_copy(update={"rows": tuple(rows)})
    decision = decide(suite({"rule": "not_worse", "margin": 0.1, "slice": "rule"}), one, one)
    r0, r9 = decision.checks[1:]
    assert (r0.passed, r9.passed, r9.too_few) == (True, False, True)
    assert "on score of rule=r9: not shown to stay within" in decision.reason
    assert "too few: 9 clusters could pass no policy here, it takes about 36" in decision.reason
    assert r9.p is not None
    assert r9.p_adjusted == pytest.approx(r9.p)  # the largest of two
    assert r0.p is not None
    assert r0.p_adjusted == pytest.approx(2 * r0.p)


def test_a_score_that_cannot_be_shows_nothing_until_the_suite_says_what_it_can_be() -> None:
    better, worse = report(lambda i: float(i >= 5) * 2 - 1), report(lambda i: -1.0)
    refused = decide(suite(IMPROVES), better, worse)
    assert not refused.passed
    assert "a task has -1, outside [0.0, 1.0], and nothing is shown" in refused.reason
    assert not decide(suite({"rule": "at_least", "threshold": -0.9}), better).passed
    ranges = {"score": (-1.0, 1.0)}
    told = [one.model_copy(update={"ranges": ranges}) for one in (better, worse)]
    assert decide(suite(IMPROVES), *told).passed
    with pytest.raises(ValidationError, match="a range is the least and the most"):
        suite(IMPROVES, ranges={"score": (1, -1)})


def test_a_wider_range_asks_for_more() -> None:
    pair = report(right_below(108)), report(right_below(100))
    low = []
    for ranges in ({}, {"score": (-1.0, 1.0)}, {"score": (0.0, 10.0)}):
        told = [one.model_copy(update={"ranges": ranges}) for one in pair]
        difference = decide(suite(IMPROVES), *told).checks[1].difference
        assert difference is not None
        low.append(difference.low or 0.0)
    assert low == sorted(low, reverse=True)
    assert low[0] > 0 > low[1]


def test_what_has_no_limit_is_judged_by_an_approximation_that_is_named() -> None:
    short, long = report(right_below(100), tokens=5), report(right_below(100), tokens=9)
    gate = {"rule": "improves", "metric": "tokens"}
    assert "by Student's t" in decide(suite(gate), short, long).reason
    told = [one.model_copy(update={"ranges": {"tokens": (0.0, 50.0)}}) for one in (short, long)]
    assert "by Student's t" not in decide(suite(gate), *told).reason


def test_environments_say_what_their_rewards_can_be_and_the_suite_has_the_last_word() -> None:
    def make(env_id: str, **_: object) -> SingleTurnEnv:
        env = SingleTurnEnv(TaskSet([five_rules(1).model_copy(update={"split": "eval"})]), Rubric(lambda: 1.0))
        env.ranges = {"score": (-1.0, 1.0)} if "B" in env_id else {}
        return env

    two = {"env": [{"id": "a/A-v0", "name": "a"}, {"id": "a/B-v0", "name": "b"}]}
    assert task_list(suite(**two), make).ranges == {"score": (-1.0, 1.0)}
    told = suite(**two, ranges={"score": (-2.0, 2.0), "cost": (0.0, 1.0)})
    assert task_list(told, make).ranges == {"score": (-2.0, 2.0), "cost": (0.0, 1.0)}


def test_a_rule_of_ones_own_is_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoTaskLost(Paired):
        """Passes where no task that the champion solves is lost."""

        def bound(self, gate: Gate) -> float:
            return 0.0

        def decide(self, gate: Gate, measured: Measured) -> Verdict:
            assert measured.difference
            return Verdict(measured.difference.losses == 0, self.bound(gate))

        def words(self, gate: Gate, measured: Measured, passed: bool) -> str:
            assert measured.difference
            return f"{measured.difference.losses} tasks lost"

    monkeypatch.setitem(rules.RULES, "no_task_lost", NoTaskLost())
    pair = report(right_below(90)), report(right_below(100))
    decision = decide(suite({"rule": "no_task_lost"}), *pair)
    assert (decision.passed, decision.reason) == (False, "no_task_lost on score: 10 tasks lost")
    assert decide(suite({"rule": "no_task_lost"}), pair[1], pair[0]).passed
    with pytest.raises(ValidationError, match="did you mean 'no_task_lost'"):
        suite({"rule": "no_tasks_lost"})


def test_one_of_many_looks_gets_its_share_of_the_error() -> None:
    def share(step: int, steps: int, **settings: object) -> float:
        config = EvalConfig.model_validate({"suites": ["s.toml"], **settings})
        return error_of_a_look(suite(IMPROVES), config, steps, step)

    assert share(10, 10) == share(20, 20) == pytest.approx(0.025)  # one eval, and the second of two
    assert [share(step, 100) for step in (10, 50, 100)] == pytest.approx([0.0005, 0.0045, 0.0095])
    assert share(95, 95) == pytest.approx(0.0095)  # the last step is evaluated, too
    for steps in (10, 40, 95, 100, 500):
        assert sum(share(min(step, steps), steps) for step in range(10, steps + 10, 10)) <= 0.05 + 1e-12
    assert share(10, 100, error="look") == pytest.approx(0.025)
    eight = report(right_below(108)), report(right_below(100))
    assert decide(suite(IMPROVES), *eight).passed
    looked = decide(suite(IMPROVES), *eight, error=share(20, 100))
    assert not looked.passed
    assert looked.confidence == pytest.approx(0.997)
