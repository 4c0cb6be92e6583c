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
from typing import Literal

import torch

from vertigym.core.errors import InputError, MissingDependencyError, VertigymError
from vertigym.core.seeds import generator
from vertigym.core.types import Completion, Message, Prompt, Sampling
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import Learner
from vertigym.learner.logit_head import MODEL_ERRORS
from vertigym.learner.own_forward import BOUND, distances, loaded_distance, settle, some_groups
from vertigym.learner.ranks import SINGLE_RANK
from vertigym.learner.samples import TrainingSample
from vertigym.policies.agreement import engine_gap, greedy_departure, tolerance
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.lora import LoRAConfig, add_lora, merged_state
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.trainer.setup import load

Verdict = Literal["right", "mended", "refused", "skipped"]
Found = str | list[str]  # what was compared; or what had to be given up, a sentence each

_CHATS: tuple[Sequence[Message], ...] = (
    ({"role": "user", "content": "How many days do refunds take?"},),
    ({"role": "user", "content": "My order came late, opened, and without a receipt. What can I ask for?"},),
    (
        {"role": "user", "content": "Is a receipt needed?"},
        {"role": "assistant", "content": "Yes, for refunds."},
        {"role": "user", "content": "And for an exchange?"},
    ),
)
_ANSWER = "Yes, with a receipt."
_TOKENS = 24
_LR, _LR_ADAPTERS = 1e-3, 1e-2  # large: after one step, log-probs must have moved


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """One check: what was found, and what follows from it."""

    name: str
    verdict: Verdict
    detail: str


def check_model(folder: Path) -> Iterator[ModelCheck]:
    """The checks of a model folder, as they are done; a refusal ends them.

    Raises:
        DataError: the folder holds no loadable model.
    """
    for steps in (_Whole(folder).steps(), _Adapted(folder).steps()):
        for name, step in steps.items():
            check = _attempt(name, step)
            yield check
            if check.verdict == "refused":
                return
            if check.verdict == "skipped":
                break


def verdict_of(checks: Sequence[ModelCheck]) -> Verdict:
    """The worst verdict. A model that only adapters do not fit is trained whole, or with other targets."""
    if any(check.verdict == "refused" and "adapters" not in check.name for check in checks):
        return "refused"
    return "right" if all(check.verdict in ("right", "skipped") for check in checks) else "mended"


class _Whole:
    """A model through one step of training."""

    _rate = _LR

    def __init__(self, folder: Path) -> None:
        self._model, self._tokenizer = load(folder)

    def steps(self) -> dict[str, Callable[[], Found]]:
        """The checks in their order, by name."""
        return {
            "chat template": self._render,
            "engine": self._open_engine,
            "greedy": self._greedy,
            "trainer": self._settle,
            "bfloat16 passes": self._bfloat16,
            "after a step": self._step,
            "exported": self._export,
        }

    def _render(self) -> Found:
        """What is trained of a chat: the answer, up to a token that ends a turn."""
        renderer = ChatRenderer(self._tokenizer)
        for chat in _CHATS:
            row = renderer.training_rows([*chat, {"role": "assistant", "content": _ANSWER}])[-1]
            trained = [i for i, on in zip(row.token_ids, row.loss_mask, strict=True) if on]
            text = str(self._tokenizer.decode(trained))
            if _ANSWER not in text or trained[-1] not in renderer.stop:
                raise InputError(
                    f"of the answer {_ANSWER!r}, {text!r} would be trained, without an end of turn"
                )
        return f"turns end with {self._tokenizer.decode(renderer.end_of_turn)!r}"

    def _open_engine(self) -> Found:
        notes: list[str] = []
        self._engine = TransformersEngine(self._model, self._tokenizer, on_note=notes.append)
        self._learner = self._new_learner()
        self._samples = [TrainingSample.of(one) for one in self._written() if one.token_ids] or self._drawn()
        agrees = self._engine_agrees()
        return notes or agrees

    def _engine_agrees(self) -> str:
        """The engine's log-probs of its own samples, beside the model's."""
        return _within(engine_gap(self._model, self._written(), banned=self._engine.banned).max, "the engine")

    def _written(self) -> list[Completion]:
        """Two answers to each chat."""
        prompts = [Prompt(chat, seed=seed) for chat in _CHATS for seed in range(2)]
        return self._engine.generate(prompts, Sampling(max_tokens=_TOKENS))

    def _drawn(self) -> list[TrainingSample]:
        """Answers at random, for a model whose engine writes none."""
        rng, samples = generator("model check"), []
        for chat in _CHATS:
            prompt = self._engine.renderer.prompt(chat)
            answer = rng.choice(sorted(self._tokenizer.get_vocab().values()), _TOKENS).tolist()
            samples.append(TrainingSample([*prompt, *answer], [0] * len(prompt) + [1] * _TOKENS))
        return samples

    def _greedy(self) -> Found:
        """Greedy decoding beside the best tokens of the model's own forward pass, and beside `generate`."""
        engine, departures = self._engine, []
        for chat in _CHATS:
            (done,) = engine.generate([Prompt(chat)], Sampling(temperature=0, max_tokens=_TOKENS))
            stop = sorted(engine.renderer.stop)
            departures.append(greedy_departure(self._model, done, stop=stop, banned=engine.banned))
        return [*dict.fromkeys(filter(None, departures))] or "as generate, but where two tokens tie"

    def _settle(self) -> Found:
        notes = settle(self._learner, self._samples)
        return notes or f"alone and in shared rows within {BOUND:g} nats of the model's own forward pass"

    def _bfloat16(self) -> Found:
        learner = self._new_learner(torch.bfloat16)
        learner.share_rows, learner.fuses_head = self._learner.share_rows, self._learner.fuses_head
        gaps = _differences(_scores(self._learner, self._samples), _scores(learner, self._samples))
        far, bound = sum(gaps) / len(gaps), tolerance(torch.bfloat16)
        found = f"log-probs are {far:.2g} nats from those in float32, on average (at most {bound:g})"
        return found if far <= bound else [f'dtype = "float32" only: {found}']

    def _step(self) -> Found:
        before = _scores(self._learner, self._samples)
        self._learner.forward_backward(self._samples, lambda logp_T, _, __: (-logp_T.sum(), {}))
        self._learner.optim_step()
        moved = max(_differences(before, _scores(self._learner, self._samples)))
        far = max(distances(self._learner, some_groups(self._samples)))
        self._engine.refresh(1)
        return f"log-probs moved by {moved:.2g}; {_within(far, 'the trainer')}; {self._engine_agrees()}"

    def _export(self) -> Found:
        with TemporaryDirectory() as folder:
            self._model.save_pretrained(folder, state_dict=merged_state(self._model))
            self._tokenizer.save_pretrained(folder)
            far = loaded_distance(self._learner, Path(folder), SINGLE_RANK)
        return _within(far, "the exported model, loaded again,")

    def _new_learner(self, dtype: torch.dtype = torch.float32) -> Learner:
        config = OptimizerConfig(lr=self._rate)
        return Learner(self._model, config, total_steps=1, dtype=dtype, banned=self._engine.banned)


class _Adapted(_Whole):
    """The same with adapters on all linear layers."""

    _rate = _LR_ADAPTERS

    def steps(self) -> dict[str, Callable[[], Found]]:
        """What adapters may change."""
        steps = super().steps()
        chosen = ("engine", "trainer", "after a step", "exported")
        return {"adapters": self._add, **{f"{name}, adapters": steps[name] for name in chosen}}

    def _add(self) -> Found:
        add_lora(self._model, LoRAConfig(rank=4, alpha=8), seed=0)
        return f"{sum(p.numel() for p in self._model.parameters() if p.requires_grad)} weights"


def _attempt(name: str, step: Callable[[], Found]) -> ModelCheck:
    try:
        found = step()
    except MissingDependencyError as error:
        return ModelCheck(name, "skipped", str(error))
    except VertigymError as error:
        return ModelCheck(name, "refused", str(error))
    except torch.OutOfMemoryError:  # the machine's failure says nothing of the model
        raise
    except MODEL_ERRORS as error:
        return ModelCheck(name, "refused", f"{type(error).__name__}: {' '.join(str(error).split())}")
    if isinstance(found, str):
        return ModelCheck(name, "right", found)
    return ModelCheck(name, "mended", "; ".join(found))


def _scores(learner: Learner, samples: Sequence[TrainingSample]) -> list[float]:
    return [logp for row in learner.score(samples) for logp in row]


def _differences(some: Sequence[float], others: Sequence[float]) -> list[float]:
    return [abs(a - b) for a, b in zip(some, others, strict=True)]


def _within(far: float, what: str) -> str:
    """
    Raises:
        InputError: it is farther.
    """
    if not far <= BOUND:
        raise InputError(f"{what} is {far:.2g} nats from the model's own forward pass (at most {BOUND:g})")
    return f"{what} within {far:.1e} nats"
