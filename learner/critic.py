"""PPO's critic: an estimate, before each token, of the reward that an episode will still get.

A learner like the policy's, on a trunk of its own (a copy of the starting model's) with one linear head in
place of the vocabulary: packing, shared prompts, micro-batches, clipping and state are the learner's. The head
starts at 0, so that an untrained critic adds no noise.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vertigym.learner import losses
from vertigym.learner.batch import Batch
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import Learner, Loss
from vertigym.learner.logit_head import trunk_of
from vertigym.policies.full_tensors import load_full_state


class ValueModel(nn.Module):
    """The trunk of a causal model with a value head in fp32."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config
        self.base_model = trunk_of(model)
        self.head = nn.Linear(model.config.hidden_size, 1, device=next(model.parameters()).device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)


class Critic(Learner):
    """`score` gives values in place of log-probs, and `forward_backward` hands them to the loss.

    Args:
        model: a causal model of the critic's own; its vocabulary head is not used.
        passes: how forward and backward passes are run, as for the learner.
    """

    def __init__(self, model: Any, config: OptimizerConfig, *, total_steps: int, **passes: Any) -> None:
        super().__init__(ValueModel(model), config, total_steps=total_steps, **passes)

    def logprobs(
        self,
        batch: Batch,
        *,
        entropy: bool = False,
        fused_loss: Loss | None = None,
        hidden_TH: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Values before each of the batch's trained tokens, `[T]` fp32."""
        hidden_TH = self.hidden(batch) if hidden_TH is None else hidden_TH
        return self.model.head(hidden_TH.float())[:, 0], None

    def _find_head(self) -> None:
        """There is no vocabulary."""

    def save_state(self, folder: Path) -> None:
        """Write the weights, which no model folder holds, and the optimizer's state."""
        super().save_state(folder)
        self._write(self.model.state_dict(), folder / "model.pt")

    def load_state(self, folder: Path) -> None:
        """Take both over from `folder`."""
        super().load_state(folder)
        state = torch.load(folder / "model.pt", weights_only=True, map_location=self._device)
        load_full_state(self.model, state)


def critic_loss(clip: float) -> Loss:
    """`value_clip` over the columns `old_value` and `returns`; reports the share of clipped values and the
    squared error."""

    def loss(value_T: Tensor, _: Tensor | None, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        old_T, return_T = batch.columns.old_value, batch.columns.returns
        assert old_T is not None
        assert return_T is not None
        term_T, clipped_T = losses.value_clip(value_T, old_T, return_T, clip=clip)
        squared_T = (value_T.detach() - return_T).square()
        return term_T.sum(), {"clip_share": clipped_T.sum(), "squared_error": squared_T.sum()}

    return loss
