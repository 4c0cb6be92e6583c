"""Training samples: token ids, which of them carry a loss, and the numbers that belong to those tokens.

The one idea: a number of a token (its log-prob under somebody, its advantage, its weight) has one name from the
episode to the loss. It is a list in a sample and a tensor in a batch; nothing else differs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Generic, TypeVar

from vertigym.core.types import Completion

C = TypeVar("C")
D = TypeVar("D")


@dataclass(slots=True, kw_only=True)
class TokenColumns(Generic[C]):
    """Numbers of the trained tokens, in the order of the mask's ones; None where nobody has given them."""

    sampler_logp: C | None = None  # under the distribution that the token was sampled from
    trainer_logp: C | None = None  # under the trainer's weights before the step
    reference_logp: C | None = None  # under the starting model
    teacher_logp: C | None = None
    advantage: C | None = None
    weight: C | None = None  # of the token's loss, by the normaliser
    old_value: C | None = None  # the critic's estimate before the step
    returns: C | None = None  # what the critic learns to say

    def given(self) -> Iterator[tuple[str, C]]:
        """The columns that are there, by name."""
        for column in fields(self):
            if (values := getattr(self, column.name)) is not None:
                yield column.name, values

    def map(self, change: Callable[[C], D]) -> "TokenColumns[D]":
        """The same columns, each changed."""
        return TokenColumns(**{name: change(values) for name, values in self.given()})


@dataclass(slots=True)
class TrainingSample:
    """One sequence to learn from; `loss_mask` is 1 where a token is trained. `targets`: what is to be predicted
    in the places of the trained tokens, where that is not these tokens themselves."""

    token_ids: Sequence[int]
    loss_mask: Sequence[int]
    columns: TokenColumns[Sequence[float]] = field(default_factory=TokenColumns)
    targets: Sequence[int] | None = None

    def __post_init__(self) -> None:
        assert len(self.token_ids) == len(self.loss_mask)
        assert any(self.loss_mask), "a sample without trained tokens teaches nothing"
        assert not self.loss_mask[0], "nothing predicts the first token"
        assert all(len(values) == self.trained for _, values in self.columns.given())
        assert self.targets is None or len(self.targets) == self.trained

    @classmethod
    def of(cls, completion: Completion, *, advantage: float | None = None) -> "TrainingSample":
        """A completion to learn from, with the sampler's log-probs and one advantage for all its tokens."""
        wrote = len(completion.token_ids)
        return cls(
            [*completion.prompt_ids, *completion.token_ids],
            [0] * len(completion.prompt_ids) + [1] * wrote,
            TokenColumns(
                sampler_logp=completion.logprobs,
                advantage=None if advantage is None else [advantage] * wrote,
            ),
        )

    @property
    def predicted(self) -> Sequence[int]:
        """What is to be predicted, a token for each trained one."""
        if self.targets is not None:
            return self.targets
        return [t for t, trained in zip(self.token_ids, self.loss_mask, strict=True) if trained]

    @property
    def trained(self) -> int:
        """How many tokens carry a loss."""
        return sum(self.loss_mask)

    @property
    def prompt_length(self) -> int:
        """How many tokens come before the first trained one."""
        return self.loss_mask.index(1)

    @property
    def branch_length(self) -> int:
        """How many tokens after the prompt are fed: nothing needs the last trained one, or what follows it."""
        return len(self.loss_mask) - 1 - self.loss_mask[::-1].index(1) - self.prompt_length
