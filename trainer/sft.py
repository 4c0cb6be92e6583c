"""Supervised fine-tuning: the negative log-likelihood of the assistant's tokens in logged chats.

`RowTraining` is what learning from rows has in common, whatever is minimised: `dpo` has its own update.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from vertigym.core.errors import DataError, InputError
from vertigym.core.stored_rows import StoredRows
from vertigym.core.types import Message
from vertigym.learner.batch import Batch
from vertigym.learner.learner import Learner, tokenwise
from vertigym.learner.own_forward import settle
from vertigym.learner.samples import TrainingSample
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.engine import Engine
from vertigym.traces.table_rows import read_table
from vertigym.trainer.config import RolloutConfig
from vertigym.trainer.logprob_mismatch import MismatchProbe
from vertigym.trainer.run import Rollout
from vertigym.trainer.stream import Shuffled

_PROBE_TOKENS = 16  # that the engine writes to each of a few prompts

Row = tuple[TrainingSample, ...]  # what one row of the data teaches
Update = Callable[[Sequence[Row]], dict[str, float]]  # accumulates a batch's gradient; its metrics


class RowTraining:
    """One step is one batch of rows. Every epoch is a new permutation; there are no rollouts.

    Args:
        engine: what evals sample with, compared with the learner in the first steps.
        name: the seed path of the permutations.
        on_note: takes a line for the user.
    """

    def __init__(
        self,
        learner: Learner,
        engine: Engine,
        rows: Sequence[Row],
        update: Update,
        *,
        batch: int,
        seed: int,
        name: str,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._learner, self._engine, self._on_note = learner, engine, on_note
        self._mismatch = MismatchProbe(learner, engine, RolloutConfig(max_tokens=_PROBE_TOKENS))
        self._rows, self._update, self._batch, self._first = rows, update, batch, True
        self._order = Shuffled(len(rows), seed, name)

    def step(self, step: int) -> tuple[dict[str, float], list[Rollout]]:
        """Train on the step's batch."""
        rows = [self._rows[self._order[step * self._batch + i]] for i in range(self._batch)]
        samples = list(chain.from_iterable(rows))
        if self._first:
            for note in settle(self._learner, samples):
                self._on_note(note)
            self._mismatch.of_fresh_samples(step, samples)
        metrics = self._update(rows)
        metrics |= self._learner.optim_step()
        if self._first:
            self._engine.refresh(step + 1)
            self._mismatch.of_fresh_samples(step, samples)
            self._first = False
        return metrics | {"tokens": sum(len(s.token_ids) for s in samples)}, []


def likelihood(learner: Learner) -> Update:
    """The update of SFT: the mean over the batch's trained tokens."""
    return lambda rows: learner.forward_backward(list(chain.from_iterable(rows)), _negative_log_likelihood)


@tokenwise
def _negative_log_likelihood(
    logp_T: Tensor, _: Tensor | None, __: Batch
) -> tuple[Tensor, Mapping[str, Tensor]]:
    return -logp_T.sum(), {}


def read_samples(data: Path, renderer: ChatRenderer) -> Sequence[Row]:
    """What the rows of a file teach.

    Raises:
        DataError: it is missing, has no rows, or one that is no chat or that the template cannot render.
    """
    rows: StoredRows[Row] = StoredRows(
        (one,) for where, row in read_table(data) for one in _samples(row, renderer, where)
    )
    if not rows:
        raise DataError(f"{data}: no rows to train on")
    return rows.rows


def chat_texts(row: Any, where: str) -> list[str]:
    """What a tiny model's tokenizer has to know of a row.

    Raises:
        DataError: it is no chat (names `where`).
    """
    return [message["content"] for message in chat(row, where)]


def chat(row: Any, where: str) -> list[Message]:
    """The chat of a row: its `messages`, and for a trace what was answered to them; or its question and answer.

    Raises:
        DataError: it is neither (names `where`).
    """
    messages = row.get("messages") if isinstance(row, dict) else None
    if isinstance(messages, list) and isinstance(row.get("completion"), str):
        messages = [*messages, {"role": "assistant", "content": row["completion"]}]
    asked, answer = (_text(row, names) for names in (("question", "prompt"), ("answer", "completion")))
    if messages is None and asked and answer:
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    if not isinstance(messages, list) or not any(m.get("role") == "assistant" for m in messages):
        raise DataError(
            f'{where}: a row is {{"messages": [...]}} with at least one assistant message, a trace with its '
            "completion, or has columns question and answer"
        )
    return messages


def _text(row: Any, names: Sequence[str]) -> str:
    """The first of these columns that holds a text."""
    found = (row.get(name) for name in names) if isinstance(row, dict) else ()
    return next((text for text in found if isinstance(text, str) and text.strip()), "")


def _samples(row: Any, renderer: ChatRenderer, where: str) -> list[TrainingSample]:
    """One sample, or several where the chat template does not extend a chat turn by turn.

    Raises:
        DataError: the row is no chat, or the template cannot render it (names `where`).
    """
    messages = chat(row, where)
    try:
        rows = renderer.training_rows(messages, row.get("tools") or ())
    except InputError as error:
        raise DataError(f"{where}: {error}") from None
    return [TrainingSample(row.token_ids, row.loss_mask) for row in rows]
