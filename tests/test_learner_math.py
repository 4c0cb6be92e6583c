"""Advantages and losses: hand-computed values and gradients, and what must never change them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vertigym.learner import advantages, losses

NAN = float("nan")


class TestGRPOAdvantages:
    def test_a_case_by_hand(self) -> None:
        # Group 0: mean 0.5, unbiased std of (1, 0, 1, 0) = sqrt(4 * 0.25 / 3). Group 1: no variance.
        rewards = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.7, 0.7])
        groups = torch.tensor([0, 0, 0, 0, 1, 1])
        got = advantages.grpo(rewards, groups, eps=0.0)[:4]
        each = 0.5 / math.sqrt(1 / 3)
        torch.testing.assert_close(got, torch.tensor([each, -each, each, -each]))
        assert advantages.grpo(rewards, groups)[4:].tolist() == [0.0, 0.0]

    def test_without_the_standard_deviation_it_is_the_distance_from_the_mean(self) -> None:
        got = advantages.grpo(torch.tensor([3.0, 0.0, 0.0]), torch.zeros(3, dtype=torch.long), std_scale=False)
        assert got.tolist() == [2.0, -1.0, -1.0]

    def test_an_unscored_sample_is_out_of_the_baseline_and_gets_nothing(self) -> None:
        with_hole = advantages.grpo(torch.tensor([1.0, NAN, 0.0]), torch.zeros(3, dtype=torch.long))
        without = advantages.grpo(torch.tensor([1.0, 0.0]), torch.zeros(2, dtype=torch.long))
        assert with_hole.tolist() == [without[0].item(), 0.0, without[1].item()]

    def test_a_group_of_one_gets_zero_and_not_its_raw_reward(self) -> None:
        rewards, groups = torch.tensor([5.0, 1.0, NAN, NAN]), torch.tensor([0, 1, 1, 2])
        assert advantages.grpo(rewards, groups).tolist() == [0.0] * 4

    @given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(-10, 10), st.randoms())
    @settings(max_examples=50)
    def test_shift_and_order_change_nothing(self, values: list[float], shift: float, random: object) -> None:
        rewards, groups = torch.tensor(values), torch.zeros(len(values), dtype=torch.long)
        base = advantages.grpo(rewards, groups, std_scale=False)
        shifted = advantages.grpo(rewards + shift, groups, std_scale=False)
        torch.testing.assert_close(base, shifted, atol=1e-4, rtol=1e-4)
        order = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(advantages.grpo(rewards[order], groups, std_scale=False), base[order])
        assert abs(float(base.sum())) < 1e-4

    def test_variance_is_seen_only_among_scored_samples(self) -> None:
        rewards = torch.tensor([1.0, 1.0, 0.0, 1.0, NAN, 1.0, NAN, NAN])
        groups = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
        assert advantages.with_variance(rewards, groups).tolist() == [False, True, False, False]


def clip_case(ratios: list[float], values: list[float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    old = torch.full((len(ratios),), -1.0)
    logp = (old + torch.tensor(ratios).log()).requires_grad_()
    advantage = torch.tensor(values)
    loss, clipped = losses.ppo_clip(logp, old, advantage, clip_low=0.2, clip_high=0.3)
    (gradient,) = torch.autograd.grad(loss.sum(), logp)
    return loss.detach(), clipped, gradient, advantage


class TestPPOClip:
    def test_values_and_gradients_by_hand(self) -> None:
        # Inside; above with A > 0 (clipped) and A < 0 (not); below with A > 0 (not) and A < 0 (clipped).
        loss, clipped, gradient, _ = clip_case([1.1, 1.5, 1.5, 0.5, 0.5], [2.0, 2.0, -2.0, 2.0, -2.0])
        torch.testing.assert_close(loss, torch.tensor([-2.2, -2.6, 3.0, -1.0, 1.6]))
        assert clipped.tolist() == [False, True, False, False, True]
        torch.testing.assert_close(gradient, torch.tensor([-2.2, 0.0, 3.0, -1.0, 0.0]))

    def test_at_ratio_one_the_gradient_is_the_policy_gradient(self) -> None:
        _, _, gradient, advantage = clip_case([1.0, 1.0, 1.0], [0.5, -3.0, 0.0])
        torch.testing.assert_close(gradient, -advantage)

    def test_zero_advantage_has_exactly_zero_gradient(self) -> None:
        assert clip_case([0.1, 1.0, 7.0], [0.0] * 3)[2].tolist() == [0.0, 0.0, 0.0]


class TestKL:
    def test_its_value_is_the_low_variance_estimate(self) -> None:
        d = torch.tensor([0.0, 0.5, -1.0])
        got = losses.kl(d, torch.zeros(3), "k3+")
        torch.testing.assert_close(got, torch.exp(-d) + d - 1)

    def test_its_gradient_is_the_log_ratio(self) -> None:
        logp = torch.tensor([0.3, -0.7], requires_grad=True)
        losses.kl(logp, torch.tensor([0.1, 0.1]), "k3+").sum().backward()
        torch.testing.assert_close(logp.grad, torch.tensor([0.2, -0.8]))

    def test_in_expectation_value_and_gradient_are_those_of_the_kl(self) -> None:
        torch.manual_seed(0)
        logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
        reference = torch.log_softmax(torch.randn(5, dtype=torch.float64), -1)
        logp = torch.log_softmax(logits, -1)
        probs = logp.detach().exp()
        exact = (logp.exp() * (logp - reference)).sum()
        (exact_gradient,) = torch.autograd.grad(exact, logits, retain_graph=True)
        estimate = (probs * losses.kl(logp, reference, "k3+")).sum()  # expectation over samples of the policy
        (gradient,) = torch.autograd.grad(estimate, logits)
        torch.testing.assert_close(gradient, exact_gradient)
        torch.testing.assert_close(estimate, exact)

    def test_far_apart_it_stays_finite(self) -> None:
        got = losses.kl(torch.tensor([-200.0, 200.0]), torch.zeros(2), "k3+")
        assert got.isfinite().all()


def test_shapes_of_an_empty_batch_of_groups() -> None:
    empty = torch.zeros(0)
    assert advantages.grpo(empty, torch.zeros(0, dtype=torch.long)).shape == (0,)
    with pytest.raises((RuntimeError, IndexError)):
        advantages.grpo(torch.zeros(2), torch.tensor([0, -5]))
