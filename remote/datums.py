"""Between protobuf and our own types: datums to training samples, and results to messages.

A datum is `T` input tokens and `T` targets; `targets[i]` is predicted of `inputs[:i + 1]` and need not be
`inputs[i + 1]`. Every place is scored, also those whose weight is 0: clients read the log-probs of all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vertigym.dialects.chat_call import RefusedError
from vertigym.learner.samples import TokenColumns, TrainingSample
from vertigym.remote import schema
from vertigym.remote.token_losses import Options, TokenLoss, find_token_loss

_DTYPES: Mapping[int, Any] = {schema.FLOAT32: np.float32, schema.INT64: np.int64, schema.INT32: np.int32}
_MASKED = -99999.0  # the log-prob of an empty cell in a table of likely tokens


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a base can read: token ids below `rows`, at most `context` of them; `banned` are never predicted."""

    rows: int
    vocabulary: int
    context: int
    banned: frozenset[int]

    def check(self, tokens: Sequence[int], what: str) -> None:
        """
        Raises:
            RefusedError: too many tokens, none, or one that the model does not have.
        """
        if not 0 < len(tokens) <= self.context:
            raise RefusedError(400, f"{what}: {len(tokens)} tokens; from 1 to {self.context} fit the model")
        if wrong := next((token for token in tokens if not 0 <= token < self.rows), None):
            raise RefusedError(400, f"{what}: token {wrong}; the model reads 0 to {self.rows - 1}")

    def check_targets(self, tokens: Sequence[int], what: str) -> None:
        """
        Raises:
            RefusedError: one that the model never predicts.
        """
        wrong = next((t for t in tokens if not 0 <= t < self.vocabulary or t in self.banned), None)
        if wrong is not None:
            raise RefusedError(400, f"{what}: token {wrong} is none that the tokenizer knows")


@dataclass(frozen=True, slots=True)
class ForwardBackward:
    """One chunk of a `forward` or `forward_backward`."""

    model_id: str
    seq_id: int
    samples: list[TrainingSample]
    loss: TokenLoss
    options: Options
    forward_only: bool


def read_forward_backward(message: Any, rules: TokenRules) -> ForwardBackward:
    """A parsed `ForwardBackwardRequest`.

    Raises:
        RefusedError: a loss, an option or a datum that cannot be used; it says which.
    """
    loss = find_token_loss(message.loss_fn)
    given = dict(message.loss_fn_config)
    for name, value in message.loss_fn_config_v2.items():
        given[name] = value.text if value.HasField("text") else value.number
    if not message.data:
        raise RefusedError(400, "no datum: send at least one")
    samples = [_sample(datum, loss, rules, f"datum {i}") for i, datum in enumerate(message.data)]
    options = loss.options(message.loss_fn, given)
    return ForwardBackward(message.model_id, message.seq_id, samples, loss, options, message.forward_only)


def _sample(datum: Any, loss: TokenLoss, rules: TokenRules, what: str) -> TrainingSample:
    tokens: list[int] = []
    for chunk in datum.model_input:
        if not chunk.HasField("encoded_text"):
            raise RefusedError(400, f"{what}: only text can be read here, no images and no sound")
        tokens += np.frombuffer(chunk.encoded_text.tokens, np.int32).tolist()
    rules.check(tokens, what)
    inputs = dict(datum.loss_fn_inputs)
    if "target_tokens" not in inputs:
        raise RefusedError(400, f"{what}: no target_tokens")
    targets = [
        int(token) for token in _vector(inputs.pop("target_tokens"), len(tokens), f"{what}.target_tokens")
    ]
    rules.check_targets(targets, f"{what}.target_tokens")
    if loss.inputs.keys() == {"weights"} and not inputs:
        columns = TokenColumns[Sequence[float]](weight=[1.0] * len(tokens))
    elif inputs.keys() == loss.inputs.keys():
        found = {loss.inputs[name]: _vector(inputs[name], len(tokens), f"{what}.{name}") for name in inputs}
        columns = TokenColumns(**found)
    else:
        raise RefusedError(400, f"{what} has {', '.join(inputs)}; this loss reads {', '.join(loss.inputs)}")
    return TrainingSample([*tokens, targets[-1]], [0] + [1] * len(tokens), columns, targets)


def _vector(tensor: Any, length: int, what: str) -> list[float]:
    if tensor.HasField("sparse_csr") or len(tensor.shape) > 1:
        raise RefusedError(400, f"{what}: shape {list(tensor.shape)}; one number a token is read here")
    if tensor.dtype not in _DTYPES:
        raise RefusedError(400, f"{what}: dtype {tensor.dtype} is not known here")
    values = np.frombuffer(tensor.dense, _DTYPES[tensor.dtype])
    if len(values) != length:
        raise RefusedError(400, f"{what}: {len(values)} numbers for {length} tokens")
    if not np.isfinite(values).all():
        raise RefusedError(400, f"{what}: not all are finite numbers")
    read: list[float] = values.tolist()
    return read


def loss_message(logps: Sequence[Sequence[float]], loss_sum: float) -> bytes:
    """A `ForwardBackwardOutput`: each datum's log-probs, and the sum."""
    message = schema.new("ForwardBackwardOutput", loss_fn_output_type="ArrayRecord")
    message.metrics["loss:sum"] = loss_sum
    arrays = [np.asarray(one, np.float32) for one in logps]
    ends = np.cumsum([0, *(array.nbytes for array in arrays)]).astype(np.int64)
    record = message.loss_fn_outputs.add(num_datums=len(arrays))
    field = record.fields["logprobs"]
    field.data, field.offsets = b"".join(array.tobytes() for array in arrays), ends.tobytes()
    field.dtype = schema.FLOAT32
    written: bytes = message.SerializeToString(deterministic=True)
    return written


def likely_message(rows: Sequence[Sequence[tuple[int, float]]], k: int) -> Any:
    """A `TopkLogprobs` of `(token, log-prob)` pairs a place."""
    tokens = np.zeros((len(rows), k), np.int32)
    logps = np.full((len(rows), k), _MASKED, np.float32)
    for at, row in enumerate(rows):
        for rank, (token, logp) in enumerate(row[:k]):
            tokens[at, rank], logps[at, rank] = token, logp
    return schema.new(
        "TopkLogprobs", token_ids=tokens.tobytes(), logprobs=logps.tobytes(), k=k, length=len(rows)
    )
