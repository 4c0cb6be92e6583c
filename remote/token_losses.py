"""The losses of Tinker's API: plain sums over tokens, by name. Definitions: docs/tinker.md.

The one idea: a loss says which inputs of a datum it reads, as which of our columns, and the term of one token.
Bounds of ratios are absolute on the wire (0.8, 1.2) and distances from 1 in `learner/losses.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vertigym.dialects.chat_call import RefusedError
from vertigym.learner import losses
from vertigym.learner.batch import Batch

Options = Mapping[str, float]
# (log-probs [T], columns, sequences [T], options) -> [T]
Terms = Callable[[Tensor, Any, Tensor, Options], Tensor]

_REQUIRED = float("nan")
_BOUNDS = {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}
_POLICY = {"logprobs": "sampler_logp", "advantages": "advantage"}


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """`inputs`: from a datum's names to columns; `defaults` of its options (NaN: must be given);
    `over_sequences`: a token's term depends on other tokens of its datum."""

    terms: Terms
    inputs: Mapping[str, str] = field(default_factory=lambda: _POLICY)
    defaults: Options = field(default_factory=dict)
    over_sequences: bool = False

    def __call__(self, logp_T: Tensor, batch: Batch, options: Options) -> Tensor:
        """The sum over tokens."""
        terms_T = self.terms(logp_T, batch.columns, batch.sequences_T, options)
        return terms_T.sum()

    def options(self, name: str, given: Mapping[str, Any]) -> Options:
        """
        Raises:
            RefusedError: an option that it does not have, of a wrong type, or one that must be given.
        """
        for key, value in given.items():
            if key not in self.defaults or not isinstance(value, float):
                known = ", ".join(self.defaults) or "none"
                raise RefusedError(400, f"{name}: loss_fn_config {key!r} is not known here; numbers: {known}")
        options = {**self.defaults, **given}
        if missing := [key for key, value in options.items() if value != value]:
            raise RefusedError(400, f"{name}: loss_fn_config must say {', '.join(missing)}")
        return options


def _cross_entropy(logp_T: Tensor, columns: Any, _: Tensor, __: Options) -> Tensor:
    loss_T: Tensor = -logp_T * columns.weight
    return loss_T


def _importance_sampling(logp_T: Tensor, columns: Any, _: Tensor, __: Options) -> Tensor:
    loss_T: Tensor = -torch.exp(logp_T - columns.sampler_logp) * columns.advantage
    return loss_T


def _widths(options: Options) -> dict[str, float]:
    return {"clip_low": 1 - options["clip_low_threshold"], "clip_high": options["clip_high_threshold"] - 1}


def _ppo(logp_T: Tensor, columns: Any, _: Tensor, options: Options) -> Tensor:
    return losses.ppo_clip(logp_T, columns.sampler_logp, columns.advantage, **_widths(options))[0]


def _cispo(logp_T: Tensor, columns: Any, _: Tensor, options: Options) -> Tensor:
    return losses.cispo(logp_T, columns.sampler_logp, columns.advantage, **_widths(options))[0]


def _dro(logp_T: Tensor, columns: Any, _: Tensor, options: Options) -> Tensor:
    far_T = (logp_T - columns.sampler_logp).square()
    loss_T: Tensor = -(logp_T * columns.advantage - options["beta"] / 2 * far_T)
    return loss_T


def _gspo(logp_T: Tensor, columns: Any, sequences_T: Tensor, options: Options) -> Tensor:
    """Of the tokens that the mask names: the others have no part in the sequence's ratio, and no loss."""
    named_T = columns.weight > 0
    terms_T = torch.zeros_like(logp_T)
    if named_T.any():
        terms_T[named_T] = losses.gspo(
            logp_T[named_T],
            columns.sampler_logp[named_T],
            columns.advantage[named_T],
            sequences_T[named_T],
            **_widths(options),
        )[0]
    return terms_T


LOSSES: Mapping[str, TokenLoss] = {
    "cross_entropy": TokenLoss(_cross_entropy, {"weights": "weight"}),
    "importance_sampling": TokenLoss(_importance_sampling),
    "ppo": TokenLoss(_ppo, defaults=_BOUNDS),
    "cispo": TokenLoss(_cispo, defaults=_BOUNDS),
    "dro": TokenLoss(_dro, defaults={"beta": 0.05}),
    "gspo": TokenLoss(
        _gspo, _POLICY | {"sequence_ratio_mask": "weight"}, dict.fromkeys(_BOUNDS, _REQUIRED), True
    ),
}
_WHY_NOT = {
    "stable_reinforce": "its definition is not public: say loss_fn='importance_sampling'",
    "custom": "losses run in the client here: forward_backward_custom with a function does that",
}


def find_token_loss(name: str) -> TokenLoss:
    """
    Raises:
        RefusedError: there is none of this name.
    """
    if name not in LOSSES:
        raise RefusedError(400, f"loss {name!r} is not known here: {_WHY_NOT.get(name, ', '.join(LOSSES))}")
    return LOSSES[name]
