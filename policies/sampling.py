"""Sample the next token, with its log-prob under the distribution it was drawn from."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vertigym.core.types import Sampling


def sample_tokens(logits_BV: Tensor, uniform_B: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """`(token [B], log-prob [B])` by inverse CDF: the first token at which the cumulated probability exceeds
    a uniform number. Greedy (temperature 0) takes the largest logit; its log-prob is under temperature 1,
    since under its own distribution it would always be 0.

    Args:
        logits_BV: float32.
        uniform_B: float32 in [0, 1), one number a row.
    """
    if sampling.temperature == 0:
        logp_BV = torch.log_softmax(logits_BV, -1)
        logp_B, token_B = logp_BV.max(-1)
        return token_B, logp_B
    probs_BV = distribution(logits_BV, sampling)
    cdf_BV = probs_BV.cumsum(-1)
    target_B1 = (uniform_B * cdf_BV[:, -1])[:, None]
    token_B1 = torch.searchsorted(cdf_BV, target_B1, right=True).clamp(max=logits_BV.shape[1] - 1)
    logp_B = probs_BV.gather(1, token_B1)[:, 0].log()
    return token_B1[:, 0], logp_B


def uniform_numbers(seed: int, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """`count` numbers in [0, 1) for one sample."""
    return np.random.Generator(np.random.PCG64(seed)).random(count, dtype=np.float32)


def distribution(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """The probabilities that log-probs are of: those sampled from, or those of temperature 1 where the largest
    logit is taken."""
    probs_BV = torch.softmax(logits_BV / (sampling.temperature or 1.0), -1)
    return _nucleus(probs_BV, sampling.top_p) if sampling.temperature and sampling.top_p < 1 else probs_BV


def _nucleus(probs_BV: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of tokens that reaches `top_p` (Holtzman et al. 2020), renormalised."""
    sorted_BV, order_BV = probs_BV.sort(-1, descending=True)
    before_BV = sorted_BV.cumsum(-1) - sorted_BV
    kept_BV = torch.where(before_BV < top_p, sorted_BV, 0.0)
    kept_BV = torch.zeros_like(probs_BV).scatter(1, order_BV, kept_BV)
    return kept_BV / kept_BV.sum(-1, keepdim=True)
