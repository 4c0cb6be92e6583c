"""Direct preference optimisation (Rafailov et al. 2023): of two answers the better one is made more likely, as
far as the starting model already tells them apart.

    loss = -log sigmoid(beta * (margin_chosen - margin_rejected)),  margin = log-prob - the starting model's

The one idea: its gradient is that of the two answers' log-likelihoods, weighed by how wrong the model is,
beta * sigmoid(-beta * difference). So the pair is scored first, and the learner then takes an ordinary sum over
tokens, in whatever micro-batches and on whatever ranks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vertigym.core.errors import DataError, InputError
from vertigym.core.stored_rows import StoredRows
from vertigym.evals.clustered import ClusteredValues
from vertigym.evals.statistics import estimate
from vertigym.learner.adapters_off import AdaptersOff
from vertigym.learner.batch import Batch
from vertigym.learner.learner import Learner, tokenwise
from vertigym.learner.samples import TrainingSample
from vertigym.policies.chat import ChatRenderer
from vertigym.traces.table_rows import read_table
from vertigym.trainer.run import Rollout
from vertigym.trainer.sft import Row, RowTraining

FORM = '{"messages": [...], "chosen": "...", "rejected": "..."}'


class PairUpdate:
    """The update of DPO. Metrics are means over the batch's pairs: `accuracy`, the share that is told apart
    rightly; `margin`, by how many nats times beta; and what each side has gained, `chosen_reward`,
    `rejected_reward`.

    Args:
        reference: the starting model.
    """

    def __init__(self, learner: Learner, reference: Learner | AdaptersOff, beta: float) -> None:
        self._learner, self._reference, self._beta = learner, reference, beta

    def __call__(self, rows: Sequence[Row]) -> dict[str, float]:
        """Accumulate the gradient of the mean loss of these pairs."""
        gain_N2 = self.gains(rows)
        margin_N = gain_N2[:, 0] - gain_N2[:, 1]
        weight_N = self._beta * np.exp(-np.logaddexp(0, margin_N))
        for (chosen, rejected), weight in zip(rows, weight_N.tolist(), strict=True):
            chosen.columns.weight = [weight] * chosen.trained
            rejected.columns.weight = [-weight] * rejected.trained
        samples = [sample for row in rows for sample in row]
        self._learner.forward_backward(samples, _weighted_likelihood, normalizer=len(rows))
        return {
            "loss": float(np.logaddexp(0, -margin_N).mean()),
            "accuracy": float((margin_N > 0).mean()),
            "margin": float(margin_N.mean()),
            "chosen_reward": float(gain_N2[:, 0].mean()),
            "rejected_reward": float(gain_N2[:, 1].mean()),
        }

    def gains(self, rows: Sequence[Row]) -> Any:
        """Beta times how much more likely than at the start each answer is, `[N, 2]`: chosen, rejected."""
        samples = [sample for row in rows for sample in row]
        now, start = (learner.score(samples) for learner in (self._learner, self._reference))
        gained = [sum(n) - sum(s) for n, s in zip(now, start, strict=True)]
        return self._beta * np.array(gained).reshape(-1, 2)


@tokenwise
def _weighted_likelihood(logp_T: Tensor, _: Tensor | None, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
    assert batch.columns.weight is not None
    return -(batch.columns.weight * logp_T).sum(), {}


class DPO:
    """One step is one batch of pairs; now and then, pairs that are not trained on are told apart.

    Args:
        held_out: such pairs. `held_out_accuracy` is the share that is told apart rightly, `held_out_low` the
            lower end of its 95% interval, pairs of one prompt together.
        every: steps between two looks at them; the last step has one.
    """

    def __init__(
        self, training: RowTraining, update: PairUpdate, held_out: Sequence[Row], *, every: int, steps: int
    ) -> None:
        self._training, self._update, self._held_out = training, update, held_out
        self._every, self._steps = every, steps

    def step(self, step: int) -> tuple[dict[str, float], list[Rollout]]:
        """Train on the step's batch of pairs."""
        metrics, rollouts = self._training.step(step)
        if self._held_out and ((step + 1) % self._every == 0 or step + 1 == self._steps):
            metrics |= self._told_apart()
        return metrics, rollouts

    def _told_apart(self) -> dict[str, float]:
        gain_N2 = self._update.gains(self._held_out)
        prompts = [tuple(chosen.token_ids[: chosen.prompt_length]) for chosen, _ in self._held_out]
        numbers = {prompt: str(number) for number, prompt in enumerate(dict.fromkeys(prompts))}
        right = ClusteredValues.of(gain_N2[:, 0] > gain_N2[:, 1], [numbers[prompt] for prompt in prompts])
        found = estimate(right)
        return {"held_out_accuracy": float(found.mean or 0.0), "held_out_low": float(found.low or 0.0)}


def read_pairs(data: Path, renderer: ChatRenderer) -> Sequence[Row]:
    """The pairs of a file as `(chosen, rejected)`; only the two answers are trained.

    Raises:
        DataError: it is missing, has no rows, or one that is no pair or that the template cannot render.
    """
    rows = StoredRows(_pair(row, renderer, where) for where, row in read_table(data))
    if not rows:
        raise DataError(f"{data}: no pairs to train on")
    return rows.rows


def pair_texts(row: Any, where: str) -> list[str]:
    """What a tiny model's tokenizer has to know of a row.

    Raises:
        DataError: it is no pair (names `where`).
    """
    messages, *answers = _parts(row, where)
    return [*(message["content"] for message in messages), *answers]


def _parts(row: Any, where: str) -> tuple[Any, str, str]:
    """
    Raises:
        DataError: it is no pair.
    """
    match row:
        case {"messages": [_, *_] as messages, "chosen": str(chosen), "rejected": str(rejected)}:
            if chosen.strip() == rejected.strip():
                raise DataError(f"{where}: chosen and rejected are the same answer: leave the row out")
            return messages, chosen, rejected
    raise DataError(f"{where}: a row is {FORM}; vertigym traces pairs makes such rows out of logs")


def _pair(row: Any, renderer: ChatRenderer, where: str) -> Row:
    messages, *answers = _parts(row, where)
    try:
        return tuple(_answer([*messages, {"role": "assistant", "content": text}], renderer) for text in answers)
    except InputError as error:
        raise DataError(f"{where}: {error}") from None


def _answer(chat: list[Any], renderer: ChatRenderer) -> TrainingSample:
    """The last turn after its prompt: where the template extends a chat turn by turn, earlier turns are no
    longer trained."""
    row = renderer.training_rows(chat)[-1]
    ends = [place for place, trained in enumerate(row.loss_mask) if trained]
    start = next(place for place in reversed(ends) if not row.loss_mask[place - 1])
    return TrainingSample(
        row.token_ids, [int(place >= start and bool(trained)) for place, trained in enumerate(row.loss_mask)]
    )
