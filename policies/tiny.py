"""`tiny`: a small Qwen3 model and a tokenizer made from an environment's own text, as a Hugging Face folder.

With it a whole run (warm start, RL, gate) takes a minute on a CPU and needs no download. The tokenizer keeps
words, whole numbers and runs of punctuation as single tokens (numbers split into digits learn slowly) and falls
back to bytes, so any text round-trips.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from vertigym.core.config import Config
from vertigym.core.files import whole_folder

_PIECES = r"\d+|[^\W\d]+|[^\w]+"
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

# ChatML, as the Qwen models use it.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>{{ '\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{% endif -%}"
)


class TinySize(Config):
    """The size of a tiny model; the defaults give about 0.9 M parameters. `init_std` is larger than the usual
    0.02, which stalls the warm start at this width."""

    hidden: int = Field(128, ge=8, description="width")
    layers: int = Field(4, ge=1, description="blocks")
    heads: int = Field(4, ge=1, description="attention heads")
    key_heads: int = Field(4, ge=1, description="of keys and values")
    ffn: int = Field(384, ge=8, description="width of a block's MLP")
    vocabulary: int = Field(1024, ge=300, description="at most; includes 256 bytes")
    context: int = Field(1024, ge=32, description="tokens of prompt and answer, at most")
    init_std: float = Field(0.06, gt=0, description="standard deviation of the first weights")


def build(texts: Iterable[str], folder: Path, *, size: TinySize | None = None, seed: int = 0) -> None:
    """Write a freshly initialised model with a tokenizer for `texts` to `folder`, whole or not at all."""
    import torch
    from transformers import Qwen3ForCausalLM

    from vertigym.policies.model_folder import quiet

    size = size or TinySize()
    tokenizer = make_tokenizer(texts, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(model_config(tokenizer, size))
    with quiet(), whole_folder(folder) as beside:
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)


def model_config(tokenizer: Any, size: TinySize) -> Any:
    """The transformers config of a tiny model."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        head_dim=size.hidden // size.heads,
        intermediate_size=size.ffn,
        max_position_embeddings=size.context,
        initializer_range=size.init_std,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )


def make_tokenizer(texts: Iterable[str], size: TinySize) -> Any:
    """The tokenizer of a tiny model."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    counts = Counter(piece for text in texts for piece in re.findall(_PIECES, text))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    room = size.vocabulary - len(alphabet) - len(_SPECIAL)
    words = [piece for piece, count in counts.most_common(room) if count > 1]
    encoded = ["".join(part for part, _ in to_bytes.pre_tokenize_str(word)) for word in words]
    entries = dict.fromkeys([*alphabet, *sorted(encoded)])
    tokenizer = Tokenizer(
        models.BPE(vocab={entry: i for i, entry in enumerate(entries)}, merges=[], ignore_merges=True)
    )
    split = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
