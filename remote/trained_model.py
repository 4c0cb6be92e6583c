"""A client's model: adapters over a shared base, and their optimizer, behind the verbs of the wire.

The one idea: each datum counts as if it had been alone, in the order it came (`datum_passes`). So a gradient is
the same to the bit however a client cuts its datums into chunks, and whoever else is served. Losses are plain
sums; gradients add up until `optim_step`.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vertigym.dialects.chat_call import RefusedError
from vertigym.learner.batch import Batch
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import AdamStep, Learner, tokenwise
from vertigym.remote.adapted_base import AdaptedBase
from vertigym.remote.call_models import AdamRequest, AdapterShape
from vertigym.remote.datum_passes import DatumPasses
from vertigym.remote.datums import ForwardBackward, loss_message


class TrainedModel:
    """Adapters of `shape` over `base`, and Adam."""

    def __init__(self, base: AdaptedBase, shape: AdapterShape, *, seed: int) -> None:
        self.base, self.shape = base, shape
        self.model = base.with_adapters(shape, seed=seed)
        self.learner = Learner(self.model, OptimizerConfig(), total_steps=1, banned=base.banned)
        sizes = shape.model_dump_json(exclude={"seed"})
        self._passes = DatumPasses(self.learner, base.rules.context, alike=base.alike.get(sizes))
        base.alike[sizes] = self._passes.alike
        self.has_gradient = False

    def forward_backward(self, call: ForwardBackward) -> bytes:
        """Add to the gradient, unless `forward_only`; log-probs of all places, and the loss."""

        def loss(logp_T: Tensor, _: Tensor | None, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
            return call.loss(logp_T, batch, call.options), {}

        passes = self._passes.forward if call.forward_only else self._passes.backward
        done = passes(call.samples, loss if call.loss.over_sequences else tokenwise(loss))
        self.has_gradient |= not call.forward_only
        return loss_message([logps for logps, _ in done], math.fsum(value for _, value in done))

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
