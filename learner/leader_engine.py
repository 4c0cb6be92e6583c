"""An engine of which a run has one, though it has several ranks: a vLLM server, say. The leader samples with
it, and the weights that it follows lie on all ranks, which put them together for it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vertigym.core.types import Completion, Prompt, Sampling
from vertigym.learner.ranks import Ranks
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.engine import Engine, stop_ids
from vertigym.policies.lora import merged_state


class LeaderEngine:
    """An Engine whose methods are collective; `inner` is the leader's engine (None on the other ranks), whose
    methods are not.

    Args:
        model: what is trained, sharded or about to be.
        open_engine: opens the engine, given `weights`: where its `refresh` finds them, adapters merged.
    """

    has_copy = True

    def __init__(
        self,
        ranks: Ranks,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        open_engine: Callable[..., Engine],
    ) -> None:
        self._ranks, self._model = ranks, model
        stop, rows = stop_ids(model.generation_config), model.get_input_embeddings().weight.shape[0]
        self.tokenizer, self.renderer = tokenizer, ChatRenderer(tokenizer, stop=stop, rows=rows)
        self.version = 0
        self.inner: Engine | None = None
        self._weights: Mapping[str, Tensor] = merged_state(model, ranks.keep_on_leader)
        ranks.on_leader(lambda: self._open(open_engine))
        self._weights = {}

    def refresh(self, version: int) -> None:
        """Take over the model's current weights, as policy version `version`."""
        self._weights = merged_state(self._model, self._ranks.keep_on_leader)
        self._ranks.on_leader(lambda: self.inner.refresh(version) if self.inner else None)
        self._weights, self.version = {}, version

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """What the leader's engine writes."""
        return self._ranks.on_leader(lambda: self.inner.generate(prompts, sampling) if self.inner else [])

    def close(self) -> None:
        """The leader's engine gives back what it holds. Not collective: a run may end by an error."""
        if self.inner:
            self.inner.close()

    def _open(self, open_engine: Callable[..., Engine]) -> None:
        self.inner = open_engine(weights=lambda: self._weights)
