"""The objective of a policy-gradient step: advantage × loss × normaliser × KL × correction, composed by a
PolicyConfig out of the pure functions in `advantages` and `losses`.

    token_advantages(config, earned)      what each token is worth; for a critic, what it should have said
    token_weights(config, lengths_N)      the normaliser
    policy_loss(config)                   a `Loss` for the learner, over these columns:

        advantage, weight                 as above
        sampler_logp                      under the distribution the token was sampled from
        old_logp                          under the trainer's weights before the step (`ratio_to = "trainer"`)
        reference_logp                    under the starting model (`kl` in the loss)

Axes: N sequences (episodes), K parts of a score, T tokens the policy wrote, flat over the batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vertigym.learner import advantages, losses
from vertigym.learner.batch import Batch
from vertigym.learner.config import PolicyConfig
from vertigym.learner.learner import Loss, tokenwise


@dataclass(frozen=True, slots=True)
class Earned:
    """What some scored episodes earned. `rewards_T` is the reward that came with each token (most are 0), so an
    episode's own is their sum; `parts_NK` are the score's parts (gdpo), `values_T` the critic's (gae)."""

    rewards_T: Tensor
    sequences_T: Tensor
    groups_N: Tensor
    parts_NK: Tensor | None = None
    values_T: Tensor | None = None

    def episodes(self) -> Tensor:
        """One reward an episode."""
        zero_N = self.rewards_T.new_zeros(len(self.groups_N))
        return zero_N.index_add(0, self.sequences_T, self.rewards_T)


def token_advantages(config: PolicyConfig, earned: Earned) -> tuple[Tensor, Tensor | None]:
    """`(advantages [T], returns [T] for a critic or None)`."""
    if config.advantage == "gae":
        assert earned.values_T is not None
        found_T, returns_T = advantages.gae(
            earned.rewards_T, earned.values_T, earned.sequences_T, gamma=config.gamma, lam=config.lam
        )
        return advantages.whiten(found_T) if config.whiten else found_T, returns_T
    if config.advantage == "reinforce++":
        found_T = advantages.reinforce_plus_plus(earned.rewards_T, earned.sequences_T, gamma=config.gamma)
        return found_T, None
    return _relative(config, earned)[earned.sequences_T], None


def _relative(config: PolicyConfig, earned: Earned) -> Tensor:
    """`[N]`: how much better than the others of its group an episode was."""
    if config.advantage == "gdpo":
        assert earned.parts_NK is not None
        return advantages.gdpo(earned.parts_NK, earned.groups_N, torch.tensor(list(config.parts.values())))
    if config.advantage == "rloo":
        return advantages.rloo(earned.episodes(), earned.groups_N)
    if config.advantage == "maxrl":
        return advantages.maxrl(earned.episodes(), earned.groups_N)
    return advantages.grpo(earned.episodes(), earned.groups_N, std_scale=config.std_scale)


def informative(config: PolicyConfig, earned: Earned) -> Tensor:
    """Bool `[G]`: groups whose episodes differ in what the advantage looks at."""
    columns = earned.episodes()[:, None] if earned.parts_NK is None else earned.parts_NK
    varied = [advantages.with_variance(column_N, earned.groups_N) for column_N in columns.unbind(1)]
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

    def loss(logp_T: Tensor, entropy_T: Tensor | None, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        columns = batch.columns
        sampler_T, weight_T = columns["sampler_logp"], columns["weight"]
        old_T = columns.get("old_logp", sampler_T)
        term_T, silenced_T = _term(config, logp_T, old_T, columns["advantage"], batch.sequences_T)
        report = {
            "clip_share": silenced_T.sum(),
            "ratio": torch.exp(logp_T.detach() - old_T).sum(),
            "sampler_kl": losses.kl(sampler_T, old_T if "old_logp" in columns else logp_T.detach(), "k3").sum(),
        }
        if config.correction != "none":
            correction_T = _correction(config, old_T, sampler_T, batch.sequences_T)
            term_T = correction_T * term_T
            report |= {"correction": correction_T.sum(), "correction_dropped": (correction_T == 0).sum()}
        if "reference_logp" in columns:
            kl_T = _kl(config, logp_T, sampler_T, columns["reference_logp"])
            term_T = term_T + config.kl * kl_T
            report["kl"] = kl_T.sum()
        total = (weight_T * term_T).sum()
        if entropy_T is not None:
            total = total - config.entropy * entropy_T.sum()
            report["entropy"] = entropy_T.sum()
        return total, report

    by_sequence = config.loss == "gspo" or config.correction.startswith("sequence")
    return loss if by_sequence else tokenwise(loss)


def _term(
    config: PolicyConfig, logp_T: Tensor, old_T: Tensor, advantage_T: Tensor, sequences_T: Tensor
) -> tuple[Tensor, Tensor]:
    low, high = config.clip_low, config.clip_high
    match config.loss:
        case "ppo_clip":
            return losses.ppo_clip(
                logp_T, old_T, advantage_T, clip_low=low, clip_high=high, dual_clip=config.dual_clip
            )
        case "gspo":
            return losses.gspo(logp_T, old_T, advantage_T, sequences_T, clip_low=low, clip_high=high)
        case "cispo":
            return losses.cispo(logp_T, old_T, advantage_T, clip_low=low, clip_high=high)
        case "dppo_tv":
            return losses.dppo_tv(logp_T, old_T, advantage_T, clip_low=low, clip_high=high)
        case "reinforce":
            return losses.reinforce(logp_T, advantage_T)


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
