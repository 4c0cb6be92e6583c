"""The objective of a policy-gradient step: advantage × loss × normaliser × KL × correction, composed by a
PolicyConfig out of the functions that `registry` names.

    token_advantages(config, rewards)     advantages; for a critic, what it should have said
    token_weights(config, lengths_N)      the normaliser
    policy_loss(config)                   a `Loss` for the learner, over these columns:

        advantage, weight                 as above
        sampler_logp                      under the distribution the token was sampled from
        trainer_logp                      under the trainer's weights before the step (`ratio_to = "trainer"`)
        reference_logp                    under the starting model (`kl` in the loss)

Axes: N sequences (episodes), K parts of a score, T tokens the policy wrote, flat over the batch.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from vertigym.learner import losses
from vertigym.learner.advantages import with_variance
from vertigym.learner.batch import Batch
from vertigym.learner.config import PolicyConfig
from vertigym.learner.learner import Loss, tokenwise
from vertigym.learner.registry import EpisodeRewards, LossInputs, find_advantage, find_loss


def token_advantages(config: PolicyConfig, rewards: EpisodeRewards) -> tuple[Tensor, Tensor | None]:
    """`(advantages [T], returns [T] for a critic or None)`."""
    return find_advantage(config.advantage).function(rewards, config)


def informative(rewards: EpisodeRewards) -> Tensor:
    """Bool `[G]`: groups whose episodes differ in what the advantage looks at."""
    columns_NK = rewards.totals()[:, None] if rewards.parts_NK is None else rewards.parts_NK
    varied = [with_variance(column_N, rewards.groups_N) for column_N in columns_NK.unbind(1)]
    return torch.stack(varied).any(0)


def token_weights(config: PolicyConfig, lengths_N: Tensor) -> Tensor:
    """`[N]`, the weight of every token of an episode, such that `Σ weight · loss / T` is

        token       Σ_i Σ_t loss / Σ_i |o_i|              every token counts the same (DAPO)
        sequence    Σ_i (Σ_t loss / |o_i|) / N            every episode counts the same (GRPO)
        constant    Σ_i Σ_t loss / (N · L)                a long one counts more, by a fixed scale (Dr. GRPO)

    Args:
        lengths_N: trained tokens of the episodes of one optimizer step; one without any is not counted in N.
    """
    lengths_N = lengths_N.double()
    total, count = lengths_N.sum(), (lengths_N > 0).sum()
    if config.normalizer == "token":
        return torch.ones_like(lengths_N)
    if config.normalizer == "sequence":
        return torch.where(lengths_N > 0, total / (count * lengths_N.clamp(min=1)), 0.0)
    return torch.full_like(lengths_N, float(total / (count * config.normalizer_length).clamp(min=1)))


def policy_loss(config: PolicyConfig) -> Loss:
    """The loss of a batch as a sum, to be divided by its trained tokens; what it reports is a sum likewise."""
    policy = find_loss(config.loss)

    def loss(logp_T: Tensor, entropy_T: Tensor | None, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        columns = batch.columns
        assert columns.sampler_logp is not None
        assert columns.advantage is not None
        assert columns.weight is not None
        sampler_T = columns.sampler_logp
        # Not scored beforehand: this pass is the first with the weights before the step.
        before_T = logp_T.detach() if columns.trainer_logp is None else columns.trainer_logp
        old_T = sampler_T if config.ratio_to == "sampler" else before_T
        term_T, clipped_T = policy.function(
            LossInputs(logp_T, old_T, sampler_T, columns.advantage, batch.sequences_T), config
        )
        report = {
            "clip_share": clipped_T.sum(),
            "ratio": torch.exp(logp_T.detach() - old_T).sum(),
            "sampler_kl": losses.kl(sampler_T, before_T, "k3").sum(),
        }
        if config.correction != "none":
            correction_T = _correction(config, old_T, sampler_T, batch.sequences_T)
            term_T = correction_T * term_T
            report |= {"correction": correction_T.sum(), "correction_dropped": (correction_T == 0).sum()}
        if columns.reference_logp is not None:
            kl_T = _kl(config, logp_T, sampler_T, columns.reference_logp)
            term_T = term_T + config.kl * kl_T
            report["kl"] = kl_T.sum()
        total = (columns.weight * term_T).sum()
        if entropy_T is not None:
            total = total - config.entropy * entropy_T.sum()
            report["entropy"] = entropy_T.sum()
        return total, report

    by_sequence = not policy.tokenwise or config.correction.startswith("sequence")
    return loss if by_sequence else tokenwise(loss)


def _correction(config: PolicyConfig, old_T: Tensor, sampler_T: Tensor, sequences_T: Tensor) -> Tensor:
    assert config.correction != "none"
    return losses.sampler_weights(
        old_T,
        sampler_T,
        sequences_T,
        level=config.correction,
        mode=config.correction_mode,
        low=config.correction_low,
        high=config.correction_high,
    )


def _kl(config: PolicyConfig, logp_T: Tensor, sampler_T: Tensor, reference_T: Tensor) -> Tensor:
    if config.kl_corrected:
        return losses.kl_off_policy(logp_T, sampler_T, reference_T, config.kl_estimator)
    return losses.kl(logp_T, reference_T, config.kl_estimator)
