"""The pure functions by hand, what must change nothing, and which configs are refused."""

import itertools
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError, InputError
from vertigym.learner import advantages, losses
from vertigym.learner.batch import Batch
from vertigym.learner.config import OptimizerConfig, PolicyConfig
from vertigym.learner.learner import Learner
from vertigym.learner.objective import policy_loss, token_weights
from vertigym.learner.samples import TokenColumns, TrainingSample
from vertigym.policies import tiny
from vertigym.policies.model_folder import load_model
from vertigym.trainer.config import RunConfig

NAN = float("nan")


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def long(*values: int) -> Tensor:
    return torch.tensor(values)


def close(got: Tensor, *expected: float) -> None:
    torch.testing.assert_close(got.detach(), t(*expected))


class TestAdvantages:
    def test_rloo_subtracts_the_mean_of_the_others(self) -> None:
        close(advantages.rloo(t(1, 0, 0.5), long(0, 0, 0)), 0.75, -0.75, 0.0)
        close(advantages.rloo(t(1, NAN, 0, 7), long(0, 0, 0, 1)), 1.0, 0.0, -1.0, 0.0)

    def test_maxrl_divides_by_the_mean(self) -> None:
        close(advantages.maxrl(t(1, 0, 0, 0, 0, 0), long(0, 0, 0, 0, 1, 1)), 3.0, -1.0, -1.0, -1.0, 0.0, 0.0)
        with pytest.raises(InputError, match="must not be negative"):
            advantages.maxrl(t(1, -0.1), long(0, 0))

    def test_gdpo_keeps_a_small_reward_from_being_drowned(self) -> None:
        # Alone, each column has mean 0 and deviation 1 in its group; their sums are (2, 0, -2) / sqrt(...).
        rewards = torch.stack([t(100, 0, 0), t(0.01, 0.01, 0)], 1)
        a, b = t(100, 0, 0), t(0.01, 0.01, 0)
        summed = (a - a.mean()) / (a.std() + 1e-6) + (b - b.mean()) / (b.std() + 1e-6)
        expected = summed / (summed.std() + 1e-6)
        torch.testing.assert_close(advantages.gdpo(rewards, long(0, 0, 0), t(1, 1)), expected)
        got = advantages.gdpo(rewards, long(0, 0, 0), t(1, 1))
        assert got[1] - got[2] > 0.5, "the third lost only the small reward"

    def test_gdpo_leaves_out_a_sample_that_lacks_a_verdict(self) -> None:
        rewards = torch.stack([t(1, 0, NAN), t(1, 0, 1)], 1)
        got = advantages.gdpo(rewards, long(0, 0, 0), t(1, 1))
        assert got[2] == 0
        assert torch.equal(got[:2], advantages.gdpo(rewards[:2], long(0, 0), t(1, 1)))

    def test_reinforce_plus_plus_whitens_the_returns_of_all_tokens(self) -> None:
        # Returns with gamma 0.5: (0.5, 1) and (-1).
        got = advantages.reinforce_plus_plus(t(0, 1, -1), long(0, 0, 1), gamma=0.5)
        returns = t(0.5, 1, -1)
        torch.testing.assert_close(got, (returns - returns.mean()) / (returns.std() + 1e-6))

    def test_gae_by_hand(self) -> None:
        # Backwards, gamma = lam = 0.5: delta = 1 - 0.4 = 0.6; then 0 + 0.5 * 0.4 - 0.2 = 0, A = 0.25 * 0.6.
        found, returns = advantages.gae(t(0, 1), t(0.2, 0.4), long(0, 0), gamma=0.5, lam=0.5)
        close(found, 0.15, 0.6)
        close(returns, 0.35, 1.0)

    def test_gae_with_lambda_one_is_the_return_minus_the_value(self) -> None:
        rewards, values, rows = t(0, 0.5, 0, 1), t(0.1, 0.2, 0.3, 0.4), long(0, 0, 0, 1)
        found, returns = advantages.gae(rewards, values, rows, lam=1.0)
        close(returns, 0.5, 0.5, 0.0, 1.0)
        torch.testing.assert_close(found, returns - values)

    @given(st.lists(st.floats(-100, 100), min_size=5, max_size=5))
    @settings(max_examples=30)
    def test_gae_never_sees_the_value_of_an_observation(self, seen: list[float]) -> None:
        mask = torch.tensor([True, True, False, False, True, False, True, False, True, False])
        rewards, rows = t(0, 0.5, 0, 0, 1, 0, 0, 0, 1, 0), long(0, 0, 0, 0, 0, 0, 1, 1, 1, 1)
        values = torch.zeros(10, dtype=torch.float64)
        values[mask] = t(0.1, 0.2, 0.3, 0.4, 0.5)
        values[~mask] = t(*seen)
        found, returns = advantages.gae(rewards, values, rows, gamma=0.9, lam=0.8, mask_T=mask)
        alone = advantages.gae(rewards[mask], values[mask], rows[mask], gamma=0.9, lam=0.8)
        assert torch.equal(found[mask], alone[0])
        assert torch.equal(returns[mask], alone[1])
        assert not found[~mask].any()
        assert not returns[~mask].any()

    def test_overlong_falls_from_the_buffer_to_the_limit(self) -> None:
        close(advantages.overlong(long(5, 60, 80, 100, 200), limit=100, buffer=40), 0, 0, -0.5, -1, -1)


def gradient(loss_T: Tensor, logp_T: Tensor) -> Tensor:
    return torch.autograd.grad(loss_T.sum(), logp_T)[0]


class TestLosses:
    def test_dual_clip_bounds_the_loss_of_a_bad_token_that_became_likely(self) -> None:
        logp = t(math.log(5), math.log(5)).requires_grad_()
        loss, clipped = losses.ppo_clip(logp, t(0, 0), t(-1, 1), clip_low=0.2, clip_high=0.28, dual_clip=3.0)
        close(loss, 3.0, -1.28)
        assert clipped.tolist() == [True, True]
        assert gradient(loss, logp).tolist() == [0.0, 0.0]

    def test_gspo_has_one_ratio_a_sequence_whatever_its_length(self) -> None:
        # Sequence 0: mean log ratio (0.4 + 0) / 2 = 0.2; sequence 1: 0.2 over three tokens.
        logp = t(0.4, 0, 0.2, 0.2, 0.2).requires_grad_()
        rows = long(0, 0, 1, 1, 1)
        loss, _ = losses.gspo(
            logp, torch.zeros(5).double(), t(1, 1, 1, 1, 1), rows, clip_low=0.5, clip_high=0.5
        )
        close(loss, *[-math.exp(0.2)] * 5)
        close(gradient(loss, logp), *[-math.exp(0.2)] * 5)
        loss, clipped = losses.gspo(
            logp, torch.zeros(5).double(), t(1, 1, -1, -1, -1), rows, clip_low=0.1, clip_high=0.1
        )
        assert clipped.tolist() == [True, True, False, False, False]

    def test_cispo_clips_the_weight_at_one_plus_the_width(self) -> None:
        logp = (t(math.log(2), math.log(0.1), 0) - 1).requires_grad_()
        loss, clipped = losses.cispo(logp, t(-1, -1, -1), t(1, 1, -2), clip_low=0.2, clip_high=0.28)
        close(gradient(loss, logp), -1.28, -0.8, 2.0)
        assert not clipped.any()

    def test_dppo_drops_by_the_distance_of_probabilities_not_by_the_ratio(self) -> None:
        # 0.01 -> 0.05 is a ratio of 5 and a distance of 0.04; 0.5 -> 0.8 a ratio of 1.6 and a distance of 0.3.
        logp = t(math.log(0.05), math.log(0.8), math.log(0.8)).requires_grad_()
        old = t(math.log(0.01), math.log(0.5), math.log(0.5))
        loss, dropped = losses.dppo_tv(logp, old, t(1, 1, -1), clip_low=0.2, clip_high=0.2, kl_weight=0.0)
        assert dropped.tolist() == [False, True, False]
        close(loss, -5.0, 0.0, 1.6)
        close(gradient(loss, logp), -5.0, 0.0, 1.6)

    @pytest.mark.parametrize("name", ["ppo_clip", "gspo", "cispo", "dppo_tv", "reinforce"])
    def test_at_ratio_one_every_loss_is_the_policy_gradient(self, name: str) -> None:
        cfg = parse(PolicyConfig, {"loss": name}, source="test")
        logp, advantage = t(-1, -2, -0.5).requires_grad_(), t(0.7, -1.5, 0.0)
        columns = TokenColumns(sampler_logp=logp.detach(), advantage=advantage, weight=torch.ones(3).double())
        total, report = policy_loss(cfg)(logp, None, batch_of(long(0, 0, 1), columns))
        torch.testing.assert_close(gradient(total, logp), -advantage)
        assert float(report["clip_share"]) == 0
        assert float(report["ratio"]) == 3

    def test_value_clip_by_hand(self) -> None:
        # Moved by 1 with a clip of 0.2, towards the return: the held error is larger, and has no gradient.
        value = t(1.0, 0.1, -1.0).requires_grad_()
        loss, clipped = losses.value_clip(value, t(0, 0, 0), t(1, 1, 1), clip=0.2)
        close(loss, 0.32, 0.405, 2.0)
        assert clipped.tolist() == [True, False, False]
        close(gradient(loss, value), 0.0, -0.9, -2.0)
        close(losses.value_clip(value, t(0, 0, 0), t(1, 1, 1), clip=0)[0], 0.0, 0.405, 2.0)


def batch_of(sequences_T: Tensor, columns: TokenColumns[Tensor]) -> Batch:
    empty = torch.zeros(0, dtype=torch.long)
    return Batch(empty, empty, empty, sequences_T, columns)


class TestSamplerWeights:
    old = t(0.0, -1.0, -0.5)
    sampler = t(-1.0, -1.0, 0.0)
    rows = long(0, 0, 1)

    def weights(self, level: Any, mode: Any, low: float, high: float) -> Tensor:
        return losses.sampler_weights(
            self.old, self.sampler, self.rows, level=level, mode=mode, low=low, high=high
        )

    def test_by_hand(self) -> None:
        e = math.e
        close(self.weights("token", "truncate", 0, 2), 2.0, 1.0, e**-0.5)
        close(self.weights("token", "mask", 0.7, 2), 0.0, 1.0, 0.0)
        close(self.weights("sequence-sum", "truncate", 0, 5), e, e, e**-0.5)
        close(self.weights("sequence-mean", "truncate", 0, 5), e**0.5, e**0.5, e**-0.5)
        close(self.weights("sequence-mean", "mask", 0.9, 2), e**0.5, e**0.5, 0.0)

    def test_a_mean_does_not_decay_with_length_and_a_sum_does(self) -> None:
        n = 500
        args = (torch.full((n,), -1.0).double(), torch.full((n,), -0.99).double(), torch.zeros(n).long())
        mean, total = (
            float(losses.sampler_weights(*args, level=level, mode="truncate", low=0, high=2)[0])
            for level in ("sequence-mean", "sequence-sum")
        )
        assert mean == pytest.approx(0.99, abs=1e-3)
        assert total < 0.01


class TestKL:
    @pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "k3+"])
    def test_off_policy_every_gradient_is_that_of_the_kl(self, estimator: Any) -> None:
        """In expectation over another sampler, exactly: summed over a vocabulary."""
        generator = torch.Generator().manual_seed(0)
        logits, reference, sampler = torch.randn(3, 6, generator=generator, dtype=torch.float64)
        logits.requires_grad_()
        logp = torch.log_softmax(logits, -1)
        ref, old = torch.log_softmax(reference, -1), torch.log_softmax(sampler, -1)
        (expected,) = torch.autograd.grad((logp.exp() * (logp - ref)).sum(), logits, retain_graph=True)
        estimate = (old.exp() * losses.kl_off_policy(logp, old, ref, estimator)).sum()
        (got,) = torch.autograd.grad(estimate, logits)
        torch.testing.assert_close(got, expected)

    @pytest.mark.parametrize(
        ("estimator", "right"), [("k1", False), ("k2", True), ("k3", False), ("k3+", True)]
    )
    def test_on_policy_and_uncorrected_only_k2_and_k3_plus_have_the_right_gradient(
        self, estimator: Any, right: bool
    ) -> None:
        generator = torch.Generator().manual_seed(1)
        logits, reference = torch.randn(2, 6, generator=generator, dtype=torch.float64)
        logits.requires_grad_()
        logp, ref = torch.log_softmax(logits, -1), torch.log_softmax(reference, -1)
        (expected,) = torch.autograd.grad((logp.exp() * (logp - ref)).sum(), logits, retain_graph=True)
        estimate = (logp.exp().detach() * losses.kl(logp, ref, estimator)).sum()
        (got,) = torch.autograd.grad(estimate, logits)
        assert torch.allclose(got, expected) == right

    def test_values_by_hand(self) -> None:
        d = math.log(2)
        for estimator, value in {"k1": d, "k2": d * d / 2, "k3": d - 0.5, "k3+": d - 0.5}.items():
            assert float(losses.kl(t(d), t(0), estimator)) == pytest.approx(value)  # type: ignore[arg-type]


class TestNormalizers:
    lengths = long(1, 3, 0)

    def mean(self, normalizer: str, **more: Any) -> float:
        """The normalised sum where every token of the first sequence has loss 1, of the second 2."""
        cfg = parse(PolicyConfig, {"normalizer": normalizer, **more}, source="test")
        weights = token_weights(cfg, self.lengths)
        return float((weights * self.lengths * t(1, 2, 0)).sum() / self.lengths.sum())

    def test_by_hand(self) -> None:
        assert self.mean("token") == pytest.approx(7 / 4)
        assert self.mean("sequence") == pytest.approx((1 + 2) / 2), "an empty sequence is not counted"
        assert self.mean("constant", normalizer_length=10) == pytest.approx(7 / 20)

    def test_nothing_trained_is_no_division_by_zero(self) -> None:
        for name in ("token", "sequence", "constant"):
            cfg = parse(PolicyConfig, {"normalizer": name, "normalizer_length": 3}, source="test")
            assert token_weights(cfg, long(0, 0)).isfinite().all()


# Through a model: padding, packing, order, micro-batches.

PROMPTS = [[3, 4, 5, 6, 7], [9, 8, 7]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("models") / "tiny"
    size = tiny.TinySize(hidden=16, layers=1, heads=2, key_heads=1, ffn=24, context=64, init_std=0.3)
    tiny.build(["a b c"] * 2, path, size=size)
    return load_model(Path(path))[0]


def episode(pick: random.Random) -> list[TrainingSample]:
    """One or two samples; a second turn comes after an observation."""
    samples = []
    for _ in range(pick.choice((1, 1, 2))):
        ids, mask = list(pick.choice(PROMPTS)), []
        mask += [0] * len(ids)
        for _ in range(pick.choice((1, 2))):
            said, seen = pick.randint(1, 4), pick.randint(1, 3)
            ids += [pick.randint(10, 40) for _ in range(said + seen)]
            mask += [1] * said + [0] * seen
        count = sum(mask)
        names = ("sampler_logp", "trainer_logp", "reference_logp")
        columns = {name: [pick.uniform(-7, -5) for _ in range(count)] for name in names}
        columns["advantage"] = [pick.gauss(0, 1) for _ in range(count)]
        samples.append(TrainingSample(ids, mask, TokenColumns(**columns)))
    return samples


def weigh(cfg: PolicyConfig, episodes: list[list[TrainingSample]]) -> list[TrainingSample]:
    lengths = torch.tensor([sum(s.trained for s in samples) for samples in episodes])
    for samples, weight in zip(episodes, token_weights(cfg, lengths).tolist(), strict=True):
        for sample in samples:
            sample.columns.weight = [weight] * sample.trained
    return [sample for samples in episodes for sample in samples]


def learnt(
    model: Any, cfg: PolicyConfig, samples: list[TrainingSample], tokens: int, *, share: bool
) -> tuple[float, Tensor]:
    learner = Learner(model, OptimizerConfig(), total_steps=1, microbatch_tokens=tokens)
    learner.share_rows = share
    model.zero_grad()
    got = learner.forward_backward(samples, policy_loss(cfg), entropy=True)
    return got["loss"], torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


COMPOSED = [
    {"loss": loss, "normalizer": normalizer, "normalizer_length": 9, "kl": 0.2, "entropy": 0.1, **more}
    for loss, normalizer in (
        ("ppo_clip", "token"),
        ("gspo", "sequence"),
        ("cispo", "constant"),
        ("dppo_tv", "sequence"),
        ("reinforce", "token"),
    )
    for more in (
        {},
        *(
            [
                {"ratio_to": "trainer", "correction": level, "correction_high": 9.0}
                for level in ("token", "sequence-mean")
            ]
            if loss != "dppo_tv"
            else []
        ),
    )
]


@given(st.integers(0, 10_000), st.sampled_from(range(len(COMPOSED))), st.sampled_from((1, 17, 40, 9999)))
@settings(max_examples=25)
def test_padding_packing_order_and_micro_batches_change_nothing(
    model: Any, seed: int, cell: int, tokens: int
) -> None:
    cfg = parse(PolicyConfig, COMPOSED[cell], source="test")
    pick = random.Random(seed)
    samples = weigh(cfg, [episode(pick) for _ in range(pick.randint(2, 6))])
    loss, grad = learnt(model, cfg, samples, 9999, share=False)
    shuffled = pick.sample(samples, len(samples))
    other_loss, other_grad = learnt(model, cfg, shuffled, tokens, share=True)
    assert other_loss == pytest.approx(loss, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(other_grad, grad, rtol=1e-3, atol=1e-5 * max(1.0, float(grad.abs().max())))


@pytest.mark.parametrize("cell", range(len(COMPOSED)))
def test_what_follows_the_last_trained_token_has_exactly_no_influence(model: Any, cell: int) -> None:
    cfg = parse(PolicyConfig, COMPOSED[cell], source="test")
    grads = []
    for tail in ([], [30, 31, 32]):
        samples = weigh(cfg, [episode(random.Random(3))])
        for sample in samples:
            sample.token_ids = [*sample.token_ids, *tail]
            sample.loss_mask = [*sample.loss_mask, *[0] * len(tail)]
        grads.append(learnt(model, cfg, samples, 9999, share=True)[1])
    assert torch.equal(*grads)


def test_a_token_without_weight_gets_exactly_no_gradient() -> None:
    for table in COMPOSED:
        cfg = parse(PolicyConfig, {**table, "entropy": 0.0}, source="test")
        logp = t(-1, -2, -3).requires_grad_()
        names = ("sampler_logp", "trainer_logp", "reference_logp", "advantage")
        columns = {name: t(-1.3, -1.8, -2.9) for name in names} | {"weight": t(1, 0, 1)}
        if cfg.loss == "gspo":
            columns["weight"] = t(1, 1, 0)
        total, _ = policy_loss(cfg)(logp, None, batch_of(long(0, 0, 1), TokenColumns(**columns)))
        got = gradient(total, logp)
        assert got[2 if cfg.loss == "gspo" else 1] == 0
        assert got[0] != 0


# Configs.


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"advantage": "gdpo"}, "name them, for example"),
        ({"parts": {"exact": 1.0}}, 'used by advantage "gdpo" only'),
        ({"advantage": "gdpo", "parts": {"exact": 1.0}, "overlong": 4}, "would be lost"),
        ({"advantage": "maxrl", "overlong": 4}, "divides by the mean reward"),
        ({"loss": "gspo", "normalizer": "token"}, "one ratio a sequence"),
        ({"loss": "dppo_tv", "ratio_to": "trainer"}, "bounds the distance from the sampler"),
        ({"loss": "reinforce", "epochs": 2}, "has no ratio"),
        ({"correction": "token"}, "while the ratio is to the sampler itself"),
        ({"normalizer": "constant"}, "needs normalizer_length"),
        ({"dual_clip": 0.5}, "must be above 1"),
        ({"kl": 0.1, "kl_in": "reward", "kl_estimator": "k3+"}, "a reward has none"),
        ({"kl": 0.1, "kl_estimator": "k1", "kl_corrected": False}, "no gradient in expectation"),
        ({"shuffle_rewards": True, "turn_rewards": True}, "remove one"),
        ({"ratio_to": "trainer", "correction": "token", "correction_low": 3.0}, "below correction_high"),
    ],
)
def test_a_combination_without_sense_is_refused_with_the_reason(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse(PolicyConfig, policy, source="test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": {"advantage": "gae"}}, '"ppo" is what trains one'),
        ({"algorithm": "ppo", "policy": {"advantage": "grpo"}}, '"ppo" is what trains one'),
        ({"rollout": {"group_size": 1}}, "group_size must be at least 2, got 1"),
        ({"algorithm": "ppo", "rollout": {"rounds": 3}}, "looks for groups with variance"),
        ({"policy": {"overlong": 999}}, "cannot exceed rollout.max_tokens"),
        ({"critic": {"clip": 0.1}}, r"section \[critic\] does nothing"),
        ({"policy": {"minibatches": 99}}, "cannot exceed rollout.tasks"),
    ],
)
def test_a_run_that_does_not_fit_its_policy_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_config(**changes)


def run_config(**changes: Any) -> RunConfig:
    table = {"name": "run", "env": "e", "model": "m", "algorithm": "grpo", "steps": 1}
    return parse(RunConfig, table | changes, source="test")


def test_defaults_follow_what_they_depend_on_and_give_way_to_what_is_said() -> None:
    gspo = parse(PolicyConfig, {"loss": "gspo", "clip_low": 0.01}, source="test")
    assert (gspo.clip_low, gspo.clip_high, gspo.normalizer) == (0.01, 4e-4, "sequence")
    icepop = {"ratio_to": "trainer", "correction": "token", "correction_mode": "mask"}
    assert parse(PolicyConfig, icepop, source="test").correction_low == 0.5
    assert parse(PolicyConfig, {"kl_in": "reward"}, source="test").kl_estimator == "k1"
    assert run_config(algorithm="ppo", rollout={"group_size": 1}).policy.advantage == "gae"
    for algorithm, loss in itertools.product(("grpo", "ppo"), ("ppo_clip", "gspo", "cispo", "dppo_tv")):
        config = run_config(algorithm=algorithm, policy={"loss": loss})
        again = parse(PolicyConfig, config.policy.model_dump(), source="resolved")
        assert again == config.policy, "a resolved config reads as itself"
