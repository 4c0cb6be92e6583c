"""Several datums in one pass, and each gradient as if its datum had been alone.

The one idea: a product of many rows gives each row the bits it gives it in any other product of four rows or
more, so a pass through the trunk may hold datums side by side. What adds up over rows is done a datum at a
time: the gradients of the adapters (`_ByDatum`), and the head with its loss. Datums are put side by side only
as they come, and padded to a length of their own, so that neither chunks nor others' work change anything.
Where a machine's products are otherwise, as is tried out first, each datum is a pass.
"""

import random
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vertigym.learner.batch import Batch, collate, lay_out
from vertigym.learner.learner import Learner, Loss
from vertigym.learner.samples import TrainingSample

_MULTIPLE = 16  # lengths are padded to one of these
_TOKENS = 512  # of a pass, unless one datum has more

# The log-probs of all of a datum's places, and its loss.
Passed = tuple[Sequence[float], float]


class DatumPasses:
    """Passes of `learner`, whose model trains adapters alone and reads up to `context` tokens.

    Args:
        alike: whether datums side by side have the gradients that they have alone; None: to be tried out.
    """

    def __init__(self, learner: Learner, context: int, *, alike: bool | None = None) -> None:
        self._learner, self._context = learner, context
        for name, module in learner.trunk.named_modules():
            if ".lora_" in name and isinstance(module, torch.nn.Linear):
                module.forward = partial(_by_datum, module)  # type: ignore[method-assign]
        self.alike = learner.knows_head and (self._alike() if alike is None else alike)
        self._most = _TOKENS if self.alike else 0

    def backward(self, samples: Sequence[TrainingSample], loss: Loss) -> list[Passed]:
        """Add each datum's gradient, one after the other."""
        done: list[Passed] = []
        for batch, sizes in self._passes(samples):
            hidden_TH = self._hidden(batch)
            apart_TH = None if hidden_TH is None else hidden_TH.detach().requires_grad_()
            for one, own_TH in _apart(batch, sizes, apart_TH):
                passed, value = self._passed(one, own_TH, loss)
                value.backward()
                done.append(passed)
            if hidden_TH is not None and apart_TH is not None and hidden_TH.requires_grad:
                hidden_TH.backward(apart_TH.grad)
        return done

    @torch.no_grad()
    def forward(self, samples: Sequence[TrainingSample], loss: Loss) -> list[Passed]:
        """The same without gradients."""
        return [
            self._passed(one, own_TH, loss)[0]
            for batch, sizes in self._passes(samples)
            for one, own_TH in _apart(batch, sizes, self._hidden(batch))
        ]

    def _hidden(self, batch: Batch) -> Tensor | None:
        """None where only the model itself knows what it makes of them."""
        return self._learner.hidden(batch) if self._learner.knows_head else None

    def _passes(self, samples: Sequence[TrainingSample]) -> Iterator[tuple[Batch, list[int]]]:
        """Neighbours of one padded length, and how many tokens each trains."""
        part: list[TrainingSample] = []
        for sample in [*samples, None]:
            length = self._padded(sample) if sample else 0
            if part and (length != self._padded(part[0]) or (len(part) + 1) * length > self._most):
                yield self._collated(part), [one.trained for one in part]
                part = []
            part += [sample] if sample else []

    def _collated(self, part: Sequence[TrainingSample]) -> Batch:
        return collate(lay_out(part, share=False), self._padded(part[0]))

    def _padded(self, sample: TrainingSample) -> int:
        fed = sample.prompt_length + sample.branch_length
        return max(fed, min(-(-fed // _MULTIPLE) * _MULTIPLE, self._context))

    def _alike(self) -> bool:
        """Whether datums side by side have the gradients that they have alone."""
        vocabulary, draw = self._learner.model.get_input_embeddings().weight.shape[0], random.Random(0)
        for size in (min(size, self._context) for size in (_MULTIPLE, 4 * _MULTIPLE)):
            ids = [[draw.randrange(vocabulary) for _ in range(size)] for _ in range(_TOKENS // size)]
            samples = [TrainingSample([*one, 0], [0] + [1] * size) for one in ids]
            found = [self._of_trunk([samples]), self._of_trunk([[one] for one in samples])]
            if not all(map(torch.equal, *found)):
                return False
        return True

    def _of_trunk(self, passes: Sequence[Sequence[TrainingSample]]) -> list[Tensor]:
        """The hidden states and the gradients of their sum."""
        states = []
        for part in passes:
            hidden_TH = self._learner.hidden(self._collated(part))
            states.append(hidden_TH.detach())
            if hidden_TH.requires_grad:
                hidden_TH.sum().backward()
        gradients = [p.grad for p in self._learner.model.parameters() if p.grad is not None]
        self._learner.forget(moments=False)
        return [torch.cat(states), *gradients]

    def _passed(self, batch: Batch, hidden_TH: Tensor | None, loss: Loss) -> tuple[Passed, Tensor]:
        fused = loss if getattr(loss, "tokenwise", False) and torch.is_grad_enabled() else None
        logp_T, _ = self._learner.logprobs(batch, fused_loss=fused, hidden_TH=hidden_TH)
        value, _ = loss(logp_T, None, batch)
        return (logp_T.detach().tolist(), float(value.detach())), value


def _apart(
    batch: Batch, sizes: Sequence[int], hidden_TH: Tensor | None
) -> Iterator[tuple[Batch, Tensor | None]]:
    """Each datum's own trained tokens, and their hidden states."""
    for start, end in pairwise(accumulate(sizes, initial=0)):
        one = batch.at(torch.arange(start, end))
        one.sequences_T = torch.zeros_like(one.sequences_T)
        yield one, None if hidden_TH is None else hidden_TH[start:end]


def _by_datum(module: torch.nn.Linear, x: Tensor) -> Tensor:
    """Of inputs `[B, S, I]`; others (an expert's tokens) are taken as of one datum."""
    x_BSI = x if x.dim() == 3 else x.flatten(0, -2)[None]
    made_BSO: Tensor = _ByDatum.apply(x_BSI, module.weight)  # type: ignore[no-untyped-call]
    return made_BSO.view(*x.shape[:-1], -1)


class _ByDatum(torch.autograd.Function):
    """A product whose weight's gradient is added up a row of the batch at a time, in their order."""

    @staticmethod
    def forward(ctx: Any, x_BSI: Tensor, weight_OI: Tensor) -> Tensor:
        """`[B, S, O]`."""
        ctx.save_for_backward(x_BSI, weight_OI)
        return functional.linear(x_BSI, weight_OI)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The inputs' gradient; the weight's is added to what it has."""
        x_BSI, weight_OI = ctx.saved_tensors
        (grad_BSO,) = grads
        if weight_OI.grad is None:
            weight_OI.grad = torch.zeros_like(weight_OI)
        for grad_SO, x_SI in zip(grad_BSO, x_BSI, strict=True):
            weight_OI.grad += grad_SO.T @ x_SI
        return grad_BSO @ weight_OI, None
