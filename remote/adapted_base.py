"""One base in memory, and any number of models over it, each with adapters of its own.

The one idea: a model's modules are copied and its weights are not. `view` deep-copies a model with every
parameter and buffer standing for itself, so `learner.Learner` and `policies.TransformersEngine` work on each
view as on any model, and what views have in common is there once.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from vertigym.core.files import write_json
from vertigym.dialects.chat_call import RefusedError
from vertigym.policies.full_tensors import load_full_state
from vertigym.policies.lora import LoRAConfig, add_lora
from vertigym.policies.model_folder import context_of, load_model, unreadable_ids
from vertigym.policies.model_source import find_model
from vertigym.remote.call_models import AdapterShape
from vertigym.remote.datums import TokenRules

ALPHA = 32  # whatever the rank, as Tinker has it: an adapter counts ALPHA / rank times
_FILE = "adapter_model.safetensors"


class AdaptedBase:
    """A base model that is never trained itself.

    Raises:
        DataError: as `load_model`.
    """

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.folder = find_model(source).folder.resolve()  # adapters name it for whoever reads them
        model, self.tokenizer = load_model(self.folder)
        self.model = model.float().eval().requires_grad_(False)
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        vocabulary = head.weight.shape[0]
        self.banned = unreadable_ids(self.tokenizer, vocabulary)
        self.rules = TokenRules(
            embedding.weight.shape[0], vocabulary, context_of(model.config), frozenset(self.banned)
        )
        self.architecture = str(model.config.model_type)
        self.alike: dict[str, bool] = {}  # by the shape of adapters: what `DatumPasses` found out

    def view(self) -> Any:
        """The model again, over the same weights."""
        shared = [*self.model.parameters(), *self.model.buffers()]
        return deepcopy(self.model, {id(tensor): tensor for tensor in shared})

    def with_adapters(self, shape: AdapterShape, *, seed: int) -> Any:
        """A view with new adapters, which alone can be trained.

        Raises:
            RefusedError: there is no layer of the kinds asked for.
        """
        model, targets = self.view(), self._targets(shape)
        if not targets:
            raise RefusedError(400, "lora_config leaves no layer to train: set one of train_attn, train_mlp")
        lora = LoRAConfig(rank=shape.rank, alpha=ALPHA, targets=targets)
        add_lora(model, lora, seed=seed if shape.seed is None else shape.seed, own_head=True)
        return model

    def _targets(self, shape: AdapterShape) -> tuple[str, ...]:
        """Linear layers: the head, those under a module called attention, and the rest."""
        head = self.model.get_output_embeddings()
        wanted = {"unembed": shape.train_unembed, "attn": shape.train_attn, "mlp": shape.train_mlp}

        def kind(name: str, module: nn.Module) -> str:
            return "unembed" if module is head else "attn" if "attn" in name or "attention" in name else "mlp"

        linear = [(n, m) for n, m in self.model.named_modules() if type(m) in (nn.Linear, Conv1D)]
        return tuple(name for name, module in linear if wanted[kind(name, module)])

    def write_adapter(self, model: Any, shape: AdapterShape, folder: Path) -> None:
        """The adapters as a folder that `peft` loads."""
        state = {
            f"base_model.model.{name.replace('.default.', '.')}": value.detach().cpu().contiguous()
            for name, value in model.state_dict().items()
            if ".lora_" in name
        }
        save_file(state, folder / _FILE, metadata={"format": "pt"})
        write_json(
            folder / "adapter_config.json",
            {
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "base_model_name_or_path": str(self.folder),
                "r": shape.rank,
                "lora_alpha": ALPHA,
                "lora_dropout": 0.0,
                "bias": "none",
                "target_modules": list(self._targets(shape)),
                "inference_mode": True,
            },
        )


@torch.no_grad()
def read_adapter(model: Any, folder: Path) -> None:
    """Take over adapters that `write_adapter` wrote, in a model of the same shape."""
    state: dict[str, Tensor] = {}
    for name, value in load_file(folder / _FILE).items():
        layer, _, matrix = name.removeprefix("base_model.model.").rpartition(".lora_")
        state[f"{layer}.lora_{matrix[0]}.default.{matrix[2:]}"] = value
    missing = {name for name in model.state_dict() if ".lora_" in name} - state.keys()
    assert not missing, f"{folder} lacks {missing}"
    load_full_state(model, state, strict=False)
