"""A client's model: adapters over a shared base, and their optimizer, behind the verbs of the wire.

The one idea: each datum passes through the model by itself, in the order it came. So a gradient is the same to
the bit however a client cuts its datums into chunks, and whoever else is served. Losses are plain sums;
gradients add up until `optim_step`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vertigym.dialects.chat_call import RefusedError
from vertigym.learner.batch import Batch, collate, lay_out
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import AdamStep, Learner, tokenwise
from vertigym.learner.samples import TrainingSample
from vertigym.remote.adapted_base import AdaptedBase
from vertigym.remote.call_models import AdamRequest, AdapterShape
from vertigym.remote.datums import ForwardBackward, loss_message


class TrainedModel:
    """Adapters of `shape` over `base`, and Adam."""

    def __init__(self, base: AdaptedBase, shape: AdapterShape, *, seed: int) -> None:
        self.base, self.shape = base, shape
        self.model = base.with_adapters(shape, seed=seed)
        self.learner = Learner(self.model, OptimizerConfig(), total_steps=1, banned=base.banned)
        self.has_gradient = False

    def forward_backward(self, call: ForwardBackward) -> bytes:
        """Add to the gradient, unless `forward_only`; log-probs of all places, and the loss."""
        pass_one = self._forward if call.forward_only else self._backward
        done = [pass_one(sample, call) for sample in call.samples]
        self.has_gradient |= not call.forward_only
        return loss_message([logps for logps, _ in done], math.fsum(value for _, value in done))

    def _backward(self, sample: TrainingSample, call: ForwardBackward) -> tuple[Sequence[float], float]:
        seen: list[float] = []

        def loss(logp_T: Tensor, _: Tensor | None, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
            seen[:] = logp_T.detach().tolist()  # the last call is of all tokens
            return call.loss(logp_T, batch, call.options), {}

        marked = loss if call.loss.over_sequences else tokenwise(loss)
        value = self.learner.forward_backward([sample], marked, normalizer=1.0)["loss"]
        return seen, value

    def _forward(self, sample: TrainingSample, call: ForwardBackward) -> tuple[Sequence[float], float]:
        logps = self.learner.score([sample])[0]
        batch = collate(lay_out([sample], share=False))
        return logps, float(call.loss(torch.tensor(logps), batch, call.options))

    def optim_step(self, adam: AdamRequest) -> dict[str, float]:
        """Apply the gradient and clear it; its norm.

        Raises:
            RefusedError: the gradient is not finite, and nothing was applied.
        """
        self.has_gradient = False
        said = self.learner.optim_step(
            AdamStep(
                adam.learning_rate, (adam.beta1, adam.beta2), adam.eps, adam.weight_decay, adam.grad_clip_norm
            )
        )
        if not math.isfinite(said["grad_norm"]):
            raise RefusedError(400, "the gradient is not finite: it was dropped, and the weights are as before")
        return {"grad_norm:last": said["grad_norm"]}

    def save(self, folder: Path) -> None:
        """Adapters, as `peft` reads them, and the optimizer's state."""
        self.base.write_adapter(self.model, self.shape, folder)
        self.learner.save_state(folder)

    def load(self, folder: Path, *, optimizer: bool) -> None:
        """Take over what `save` wrote. A gradient that has come together is dropped."""
        self.learner.load_state(folder)
        self.learner.forget(moments=not optimizer)
        self.has_gradient = False
