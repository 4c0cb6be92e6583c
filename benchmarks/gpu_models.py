"""Models with random weights in the shapes of Qwen3-0.6B and 4B, and a tokenizer that knows every id of theirs.

python benchmarks/gpu_models.py FOLDER [--layers N]
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from vertigym import envs
from vertigym.policies import tiny

VOCABULARY = 151_936
# hidden size, MLP, layers, heads
SHAPES = {"qwen3-0.6b": (1024, 3072, 28, 16), "qwen3-4b": (2560, 9728, 36, 32)}


def build(folder: Path, name: str, layers: int = 0) -> None:
    """Write one; `layers` other than its own make it smaller."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    hidden, mlp, deep, heads = SHAPES[name]
    tokenizer = _tokenizer()
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": hidden, "intermediate_size": mlp,
        "num_hidden_layers": layers or deep, "num_attention_heads": heads, "num_key_value_heads": 8,
        "head_dim": 128, "max_position_embeddings": 40_960, "tie_word_embeddings": True,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**sizes, dtype="bfloat16")).bfloat16()
    model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)


def _tokenizer() -> Any:
    env = envs.make("vertigym/Returns-v0")
    texts = [m["content"] for i in env.tasks.ids("train") for m in env.tasks.get(i).messages()]
    tokenizer = tiny.make_tokenizer(texts, tiny.TinySize())
    tokenizer.add_tokens([f"<{n}>" for n in range(VOCABULARY - len(tokenizer))])
    return tokenizer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=0)
    given = parser.parse_args()
    for shape in SHAPES:
        build(given.folder, shape, given.layers)
