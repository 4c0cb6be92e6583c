"""Whether a model trains right here: every way that vertigym computes with it, beside the model's own.

    own forward pass ═ engine ═ trainer (alone, in shared rows, with adapters, after a step) ═ exported

The one idea: nothing is known of families. A few chats are rendered, answered and trained on once, and what
should be the same log-probs is compared. What differs is mended where something slower is right; else the model
is refused.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch

from vertigym.core.errors import InputError, MissingDependencyError, VertigymError
from vertigym.core.seeds import generator
from vertigym.core.types import Completion, Message, Prompt, Sampling
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import Learner
from vertigym.learner.logit_head import MODEL_ERRORS
from vertigym.learner.own_forward import (
    BOUND,
    distances,
    loaded_distance,
    settle,
    some_groups,
)
from vertigym.learner.ranks import SINGLE_RANK
from vertigym.learner.samples import TrainingSample
from vertigym.policies.agreement import engine_gap, tolerance
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.lora import LoRAConfig, add_lora, merged_state
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.trainer.setup import load

Verdict = Literal["right", "mended", "refused", "skipped"]

_CHATS: tuple[Sequence[Message], ...] = (
    ({"role": "user", "content": "How many days do refunds take?"},),
    ({"role": "user", "content": "My order came late, opened, and without a receipt. What can I ask for?"},),
    (
        {"role": "user", "content": "Is a receipt needed?"},
        {"role": "assistant", "content": "Yes, for refunds."},
        {"role": "user", "content": "And for an exchange?"},
    ),
)
_TOKENS = 24
_LR, _LR_ADAPTERS = 1e-3, 1e-2  # large: after one step, log-probs must have moved


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """One check: what was found, and what follows from it."""

    name: str
    verdict: Verdict
    detail: str


def check_model(folder: Path) -> Iterator[ModelCheck]:
    """The checks of a model folder, as they are done.

    Raises:
        DataError: the folder holds no loadable model.
    """
    for adapters in (False, True):
        for check in _Checked(folder, adapters=adapters).checks():
            yield check
            if check.verdict == "refused":
                return


def verdict_of(checks: Sequence[ModelCheck]) -> Verdict:
    """The worst verdict that counts."""
    found = {check.verdict for check in checks}
    return "refused" if "refused" in found else "mended" if "mended" in found else "right"


class _Checked:
    """A model, with or without adapters, through one step of training."""

    def __init__(self, folder: Path, *, adapters: bool) -> None:
        self._folder, self._adapters = folder, adapters
        self._model, self._tokenizer = load(folder)
        self._samples = _samples(self._model, self._tokenizer)

    def checks(self) -> Iterator[ModelCheck]:
        """One after the other; a refusal ends them."""
        steps: dict[str, Callable[[], str | list[str]]] = {
            "chat template": self._render,
            "engine": self._open_engine,
            "greedy": self._greedy,
            "trainer": self._settle,
            "bfloat16 passes": self._bfloat16,
            "after a step": self._step,
            "exported": self._export,
        }
        if self._adapters:
            steps = {
                "adapters": self._add_adapters,
                **{f"{name}, adapters": steps[name] for name in _WITH_ADAPTERS},
            }
        for name, step in steps.items():
            check = _attempt(name, step)
            yield check
            if check.verdict in ("refused", "skipped"):
                return

    def _render(self) -> str:
        """What is trained of a chat: the answer, up to a token that ends a turn."""
        renderer, answer = ChatRenderer(self._tokenizer), "Yes, with a receipt."
        for chat in _CHATS:
            row = renderer.training_rows([*chat, {"role": "assistant", "content": answer}])[-1]
            trained = [i for i, on in zip(row.token_ids, row.loss_mask, strict=True) if on]
            text, end = str(self._tokenizer.decode(trained)), str(self._tokenizer.decode(renderer.end_of_turn))
            if answer not in text or trained[-1] not in renderer.stop:
                raise InputError(f"of the answer {answer!r}, {text!r} would be trained, without an end of turn")
        return f"turns end with {end!r}"

    def _open_engine(self) -> str | list[str]:
        """The engine's log-probs of its own samples, beside the model's."""
        notes: list[str] = []
        self._engine = TransformersEngine(self._model, self._tokenizer, on_note=notes.append)
        self._learner = self._new_learner()
        self._samples = [TrainingSample.of(one) for one in self._written() if one.token_ids] or self._samples
        return notes or self._engine_agrees()

    def _engine_agrees(self) -> str:
        far = engine_gap(self._model, self._written(), banned=self._engine.banned).max
        return _within(far, "the engine's log-probs")

    def _written(self) -> list[Completion]:
        """Two answers to each chat."""
        prompts = [Prompt(chat, seed=seed) for chat in _CHATS for seed in range(2)]
        return self._engine.generate(prompts, Sampling(max_tokens=_TOKENS))

    def _greedy(self) -> str:
        """Greedy decoding beside `generate`. Where two tokens tie, either may be taken."""
        same = [self._same_as_generate(chat) for chat in _CHATS]
        return f"{sum(same)} of {len(same)} answers are those of generate, the others up to tokens that tie"

    @torch.no_grad()
    def _same_as_generate(self, chat: Sequence[Message]) -> bool:
        """
        Raises:
            InputError: the engine takes a worse token, or stops elsewhere.
        """
        ids = torch.tensor([self._engine.renderer.prompt(chat)], device=self._engine.device)
        (done,) = self._engine.generate([Prompt(chat)], Sampling(temperature=0, max_tokens=_TOKENS))
        whole = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=_TOKENS,
            do_sample=False,
            num_beams=1,
            eos_token_id=sorted(self._engine.renderer.stop),
            suppress_tokens=self._engine.banned or None,
        )
        ours, theirs = list(done.token_ids), whole[0, ids.shape[1] :].tolist()
        if ours == theirs:
            return True
        place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        if place is None:
            raise InputError(f"greedy decoding stops after {len(ours)} tokens, `generate` after {len(theirs)}")
        logits_V = self._model(input_ids=whole[:, : ids.shape[1] + place]).logits[0, -1]
        logits_V[self._engine.banned] = -torch.inf
        if (lost := float(logits_V.max() - logits_V[ours[place]])) > BOUND:
            raise InputError(
                f"greedy decoding takes a token whose logit is {lost:.2g} below that of `generate`"
            )
        return False

    def _settle(self) -> list[str] | str:
        notes = settle(self._learner, self._samples)
        return notes or f"alone and in shared rows within {BOUND:g} nats of the model's own forward pass"

    def _bfloat16(self) -> str:
        learner = self._new_learner(dtype=torch.bfloat16)
        learner.share_rows, learner.fuses_head = self._learner.share_rows, self._learner.fuses_head
        exact, rough = self._learner.score(self._samples), learner.score(self._samples)
        gaps = [
            abs(a - b)
            for left, right in zip(exact, rough, strict=True)
            for a, b in zip(left, right, strict=True)
        ]
        return _within(sum(gaps) / len(gaps), "log-probs, on average,", tolerance(torch.bfloat16))

    def _step(self) -> str:
        before = self._learner.score(self._samples)
        self._learner.forward_backward(self._samples, lambda logp_T, _, __: (-logp_T.sum(), {}))
        self._learner.optim_step()
        after = self._learner.score(self._samples)
        moved = max(
            abs(a - b)
            for left, right in zip(before, after, strict=True)
            for a, b in zip(left, right, strict=True)
        )
        far = distances(self._learner, some_groups(self._samples))
        self._engine.refresh(1)
        return f"log-probs moved by {moved:.2g}; {_within(max(far), 'the trainer')}; {self._engine_agrees()}"

    def _export(self) -> str:
        with TemporaryDirectory() as folder:
            self._model.save_pretrained(folder, state_dict=merged_state(self._model))
            self._tokenizer.save_pretrained(folder)
            far = loaded_distance(self._learner, Path(folder), SINGLE_RANK)
        return _within(far, "the exported model, loaded again,")

    def _add_adapters(self) -> str:
        add_lora(self._model, LoRAConfig(rank=4, alpha=8), seed=0)
        count = sum(p.numel() for p in self._model.parameters() if p.requires_grad)
        return f"{count} weights on all linear layers"

    def _new_learner(self, dtype: torch.dtype = torch.float32) -> Learner:
        rate = _LR_ADAPTERS if self._adapters else _LR
        return Learner(
            self._model, OptimizerConfig(lr=rate), total_steps=1, dtype=dtype, banned=self._engine.banned
        )


_WITH_ADAPTERS = ("engine", "trainer", "after a step", "exported")


def _attempt(name: str, step: Callable[[], str | list[str]]) -> ModelCheck:
    try:
        found = step()
    except MissingDependencyError as error:
        return ModelCheck(name, "skipped", str(error))
    except VertigymError as error:
        return ModelCheck(name, "refused", str(error))
    except MODEL_ERRORS as error:
        return ModelCheck(
            name, "refused", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        )
    return (
        ModelCheck(name, "right", found)
        if isinstance(found, str)
        else ModelCheck(name, "mended", "; ".join(found))
    )


def _within(far: float, what: str, bound: float = BOUND) -> str:
    """
    Raises:
        InputError: it is farther.
    """
    if not far <= bound:
        raise InputError(
            f"{what} differ from the model's own forward pass by {far:.2g} nats (at most {bound:g})"
        )
    return f"{what} within {far:.1e} nats"


def _samples(model: Any, tokenizer: Any) -> list[TrainingSample]:
    """Chats with answers at random, where the engine cannot write any."""
    rng, samples = generator("model check"), []
    for chat in _CHATS:
        prompt = tokenizer.encode(" ".join(message["content"] for message in chat), add_special_tokens=False)
        for count in (_TOKENS, _TOKENS // 2):
            answer = rng.integers(
                0, min(len(tokenizer), model.config.get_text_config().vocab_size), count
            ).tolist()
            samples.append(TrainingSample([*prompt, *answer], [0] * len(prompt) + [1] * count))
    return samples
