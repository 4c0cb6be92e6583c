"""GGUF files: what is imported computes what its source computes; what would be lost is refused by name."""

import json
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest
import torch
from gguf import (
    GGML_QUANT_SIZES,
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFWriter,
    get_tensor_name_map,
    quants,
)
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.integrations.gguf import dequant
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from vertigym.core.errors import DataError, InputError, OutputError
from vertigym.policies import tiny
from vertigym.policies.gguf_file import ARCHITECTURES, BLOCKS
from vertigym.policies.gguf_import import import_gguf
from vertigym.policies.model_folder import load_model
from vertigym.trainer.model_check import check_model, verdict_of

TEXTS = ["the refund of order 12 was approved", "rejected: no receipt, 30 days", "It's 2026, isn't it?"] * 4
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"head_dim": 256, "query_pre_attn_scalar": 256, "tie_word_embeddings": True},
    "gemma3": {
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "tie_word_embeddings": True,
        "num_hidden_layers": 6,
    },
}
SIZE = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2, "rope_theta": 5000.0,
    "sliding_window": 8, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    return tokenizer("gpt-2")


def tokenizer(split: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 320 tokens, with merges; text is split before them as `split` says."""
    backend, level = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel(add_prefix_space=False)
    before = {
        "gpt-2": level,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level]),
        "qwen2": pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
    }
    backend.pre_tokenizer = before[split]
    backend.decoder = decoders.ByteLevel()
    special = [AddedToken(name, special=True, normalized=False) for name in tiny._SPECIAL]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=special,
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.chat_template = tiny.CHAT_TEMPLATE
    return made


def source(family: str, words: Any, **changes: Any) -> Any:
    torch.manual_seed(0)
    kind = "gemma3_text" if family == "gemma3" else family
    settings = {**SIZE, "vocab_size": len(words), **FAMILIES[family], **changes}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:  # as made, these are all ones or zeros
            parameter.data += torch.randn_like(parameter) * 0.1
    return model


def pairwise(weight: Tensor, heads: int) -> Tensor:
    """Rows of a head as llama.cpp's rotary embedding of Llama reads them: the two of a pair side by side."""
    rows = weight.shape[0] // heads
    return weight.view(heads, 2, rows // 2, -1).transpose(1, 2).reshape(weight.shape)


def add_merges(writer: GGUFWriter, words: Any, split: str) -> None:
    names = sorted(words.get_vocab(), key=words.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(names)
    writer.add_token_types([3 if name in tiny._SPECIAL else 1 for name in names])
    merges = json.loads(words.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(words.convert_tokens_to_ids("<|endoftext|>"))
    writer.add_eot_token_id(words.convert_tokens_to_ids("<|im_end|>"))
    writer.add_pad_token_id(words.pad_token_id)


def add_sentencepiece(writer: GGUFWriter, size: int) -> None:
    """Gemma's kind of tokenizer."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *tiny._SPECIAL]
    names = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *ascii_lowercase, "re", "ref"]
    names += [f"<unused{i}>" for i in range(size - len(names))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(names)
    writer.add_token_scores([-float(i) for i in range(len(names))])
    writer.add_token_types([3 if n in special else 6 if n.startswith("<0x") else 1 for n in names])
    for i, add in enumerate((writer.add_pad_token_id, writer.add_eos_token_id, writer.add_bos_token_id)):
        add(i)
    writer.add_unk_token_id(3)
    writer.add_eot_token_id(names.index("<|im_end|>"))
    writer.add_add_space_prefix(False)


def write(
    path: Path,
    family: str,
    model: Any,
    words: Any,
    *,
    kind: str = "F32",
    without: str = "",
    tensors: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    split: str = "gpt-2",
    template: str = tiny.CHAT_TEMPLATE,
) -> Path:
    """A model as llama.cpp's converter writes it."""
    config, arch = model.config, next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == family)
    writer = GGUFWriter(path, family)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if family.startswith("gemma"):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_sliding_window(config.sliding_window)
    if family == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if family == "llama":
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
        writer.add_vocab_size(config.vocab_size)
    if family == "qwen3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if family.startswith("gemma"):
        add_sentencepiece(writer, config.vocab_size)
    else:
        add_merges(writer, words, split)
    if template:
        writer.add_chat_template(template)
    for key, value in (settings or {}).items():
        writer.add_string(key, value) if isinstance(value, str) else writer.add_float32(key, value)
    places, dtype = get_tensor_name_map(arch, config.num_hidden_layers), GGMLQuantizationType[kind]
    for own, weight in model.state_dict().items():
        place = str(places.get_name(own, try_suffixes=(".weight", ".bias")))
        if place == without or (own == "lm_head.weight" and config.tie_word_embeddings):
            continue
        if family == "llama" and own.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in own else config.num_key_value_heads
            weight = pairwise(weight, heads)
        if family.startswith("gemma") and "norm" in own:
            weight = weight + 1
        array = weight.contiguous().numpy()
        if kind != "F32" and array.ndim > 1:
            writer.add_tensor(place, quants.quantize(array, dtype), raw_dtype=dtype)
        else:
            writer.add_tensor(place, array)
    for name, array in (tensors or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@torch.no_grad()
def logprobs(model: Any) -> Tensor:
    ids = torch.arange(3, 60)[None] * 5 % 250
    found: Tensor = model(ids).logits.log_softmax(-1)
    return found


def unpacked(model: Any, kind: str) -> Any:
    """The model with the rounding of a kind of blocks."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            dtype = GGMLQuantizationType[kind]
            array = quants.dequantize(quants.quantize(parameter.detach().numpy(), dtype), dtype)
            parameter.data = torch.from_numpy(array.copy())
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_imported_computes_what_its_source_does(family: str, tmp_path: Path) -> None:
    assert set(FAMILIES) == set(ARCHITECTURES), "every architecture that is imported is tested here"
    split = "qwen2" if "qwen" in family else "gpt-2"
    model = source(family, words := tokenizer(split))
    found = import_gguf(str(write(tmp_path / "m.gguf", family, model, words, split=split)), tmp_path / "out")
    loaded, own = load_model(tmp_path / "out")
    assert (logprobs(loaded) - logprobs(model)).abs().max() < 1e-4
    assert found.stop[-1] == "<|im_end|>"
    assert loaded.generation_config.eos_token_id == own.convert_tokens_to_ids(found.stop)
    assert own.decode(own("a refund").input_ids, skip_special_tokens=True) == "a refund"


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_blocks_are_unpacked(kind: str, words: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = source("llama", words)
    import_gguf(str(write(tmp_path / "m.gguf", "llama", model, words, kind=kind)), tmp_path / "out")
    assert (logprobs(load_model(tmp_path / "out")[0]) - logprobs(unpacked(model, kind))).abs().max() < 1e-4


@pytest.mark.parametrize("kind", sorted(set(BLOCKS) - {"F32", "F16", "BF16", "Q5_0", "Q5_1"}))
def test_two_programs_unpack_blocks_alike(kind: str) -> None:
    dtype = GGMLQuantizationType[kind]
    raw = np.random.default_rng(0).integers(0, 256, (64, GGML_QUANT_SIZES[dtype][1]), dtype=np.uint8)
    with np.errstate(all="ignore"):  # scales that are infinite or NaN are among random bytes
        ours = quants.dequantize(raw.copy(), dtype)
    theirs = dequant.dequantize(torch.from_numpy(raw), int(dtype)).numpy().reshape(ours.shape)
    assert np.isfinite(ours).mean() > 0.5
    np.testing.assert_array_equal(ours, theirs)


def test_llama_3_scales_its_rotary_frequencies(words: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """A file has the divisors only; `convert_hf_to_gguf.py` of llama.cpp computes them as here."""
    scaling = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    model = source("llama", words, rope_parameters=scaling, max_position_embeddings=131072)
    lengths = 2 * np.pi * 500000.0 ** (np.arange(0, 16, 2) / 16)
    smooth = np.clip((8192 / lengths - 1) / 3, 0, 1)
    divisors = (1 / ((1 - smooth) / 32 + smooth)).astype(np.float32)
    write(tmp_path / "m.gguf", "llama", model, words, tensors={"rope_freqs.weight": divisors})
    import_gguf(str(tmp_path / "m.gguf"), tmp_path / "out")
    assert (logprobs(load_model(tmp_path / "out")[0]) - logprobs(model)).abs().max() < 1e-4
    divisors[3] *= 1.5
    write(tmp_path / "m.gguf", "llama", model, words, tensors={"rope_freqs.weight": divisors})
    with pytest.raises(DataError, match=r"rope_freqs\.weight would be lost"):
        import_gguf(str(tmp_path / "m.gguf"), tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"without": "blk.0.ffn_up.weight"}, r"model needs are not in its files: .*layers\.0\.mlp\.up_proj"),
        ({"tensors": {"blk.0.attn_q.bias": np.zeros(64, np.float32)}}, r"blk\.0\.attn_q\.bias would be lost"),
        ({"tensors": {"more": np.zeros((32, 64), np.int8)}}, "tensors of kind I8, which are not unpacked"),
        ({"settings": {"llama.rope.scaling.type": "yarn"}}, r"llama\.rope\.scaling\.type = yarn would be lost"),
        ({"settings": {"llama.logit_scale": 0.5}}, r"llama\.logit_scale = 0\.5 would be lost"),
        ({"settings": {"llama.attention.key_length": 32.0}}, r"key_length = 32\.0 would be lost"),
        ({"split": "default"}, r"how its tokenizer \(gpt2 'default'\) splits text is not known: give one"),
        ({"template": ""}, "has no chat template: give one of the model with --tokenizer"),
        ({"settings": {"split.count": 3.0}}, "one of several parts"),
    ],
)
def test_what_would_be_lost_is_refused(
    changes: dict[str, Any], message: str, words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    file = write(tmp_path / "m.gguf", "llama", source("llama", words), words, **changes)
    with pytest.raises(InputError, match=message):
        import_gguf(str(file), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_gemmas_scale_of_attention_is_in_no_file(tmp_path: Path) -> None:
    words = tokenizer("gpt-2")
    file = write(tmp_path / "m.gguf", "gemma3", source("gemma3", words, head_dim=128), words)
    with pytest.raises(DataError, match="the scale of attention with heads of 128 would be lost"):
        import_gguf(str(file), tmp_path / "out")


def test_other_architectures_and_files_are_refused(words: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", MODEL_ARCH_NAMES[MODEL_ARCH.MAMBA])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(DataError, match="architecture 'mamba' is not imported, only gemma2, "):
        import_gguf(str(tmp_path / "m.gguf"), tmp_path / "out")
    (tmp_path / "x.gguf").write_bytes(b"no model")
    with pytest.raises(DataError, match="no GGUF file"):
        import_gguf(str(tmp_path / "x.gguf"), tmp_path / "out")


@pytest.mark.parametrize("split", ["gpt-2", "smollm", "qwen2"])
def test_text_is_split_as_the_file_says(split: str, tmp_path: Path) -> None:
    words = tokenizer(split)
    file = write(tmp_path / "m.gguf", "llama", source("llama", words), words, split=split)
    import_gguf(str(file), tmp_path / "out")
    _, loaded = load_model(tmp_path / "out")
    for text in (*TEXTS, "  12 2026\n\nrefund<|im_end|>12", "naïve 日本 ½"):
        assert loaded(text).input_ids == words(text).input_ids


def test_a_tokenizer_of_the_model_may_be_named(words: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    file = write(tmp_path / "m.gguf", "llama", source("llama", words), words, template="", split="default")
    words.save_pretrained(tmp_path / "words")
    import_gguf(str(file), tmp_path / "out", tokenizer=str(tmp_path / "words"))
    assert load_model(tmp_path / "out")[1].chat_template == tiny.CHAT_TEMPLATE
    tokenizer("smollm").save_pretrained(tmp_path / "others")
    with pytest.raises(DataError, match=r"its token \d+ is .*, and that of .* is"):
        import_gguf(str(file), tmp_path / "again", tokenizer=str(tmp_path / "others"))


def test_an_imported_model_passes_the_check(words: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    file = str(write(tmp_path / "m.gguf", "llama", source("llama", words), words, kind="Q8_0"))
    import_gguf(file, tmp_path / "out")
    checks = list(check_model(tmp_path / "out"))
    assert verdict_of(checks) == "right", checks
    import_gguf(file, tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text("{}")
    with pytest.raises(OutputError, match="was edited"):
        import_gguf(file, tmp_path / "out")
