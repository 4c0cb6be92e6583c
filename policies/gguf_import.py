"""`vertigym model import`: a model folder made of a GGUF file, with its tokenizer, chat template and stops.

The one idea: text must be split as llama.cpp splits it (`llama-vocab.cpp` has the names of the ways), so a file
whose way is not known needs a tokenizer of its model. What is written is loaded again before it counts.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from vertigym.core.errors import DataError
from vertigym.core.manifest import claim_folder, sealed_folder
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.gguf_file import GGUFFile
from vertigym.policies.model_folder import check_names, context_of, load_model, quiet
from vertigym.policies.model_source import find_file, find_model

_KIND = "model folder"
# How text is split before merges: as GPT-2 does, or with each digit alone. transformers has a table of others.
_GPT2, _DIGITS = {"gpt-2"}, {"smollm", "starcoder", "refact", "command-r", "codeshell"}
_PROBE = "It's 12,345.60 €:\n\n\tDon't  re-read   naïve (x_1==2)!\r\n 日本 2026-11-28?"
_NORMAL = 1  # a token of the text, not a control token
_OTHER = "give one of the model with --tokenizer FOLDER or --tokenizer org/name"


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """What was made of a file: `tensors` counts them by kind, `stop` are the texts of the stop tokens."""

    folder: str
    architecture: str
    parameters: int
    tensors: dict[str, int]
    context: int
    stop: list[str]


def import_gguf(name: str, out: Path, *, tokenizer: str = "", force: bool = False) -> ImportedModel:
    """Write a model folder, in float32, of a GGUF file.

    Args:
        name: the file, or `org/name/FILE.gguf[@REVISION]` on the hub.
        tokenizer: a model whose tokenizer is taken instead of the file's.

    Raises:
        DataError: it is no such file, or holds what would be lost or computed otherwise. InputError: no chat
            template, or nothing ends a turn. OutputError: `out` holds something else.
        MissingDependencyError: gguf is not installed.
    """
    claim_folder(out, _KIND, force=force)
    file = GGUFFile(find_file(name))
    words = _named_tokenizer(tokenizer, file) if tokenizer else _own_tokenizer(file)
    model = _model(file)
    rows = model.get_input_embeddings().weight.shape[0]
    stop = sorted(ChatRenderer(words, stop=file.ids("eos", "eot", "eom"), rows=rows).stop)
    model.generation_config = GenerationConfig()
    for config in (model.config, model.generation_config):
        config.eos_token_id = stop if stop[1:] else stop[0]
        config.bos_token_id, config.pad_token_id = words.bos_token_id, words.pad_token_id
    with sealed_folder(out, _KIND, force=force) as folder:
        model.save_pretrained(folder)
        words.save_pretrained(folder)
        if load_model(folder, device="cpu")[1](_PROBE).input_ids != words(_PROBE).input_ids:
            raise DataError(f"{file.path}: its tokenizer, once saved, splits text otherwise: {_OTHER}")
    return ImportedModel(
        str(out),
        file.architecture,
        sum(parameter.numel() for parameter in model.parameters()),
        dict(file.kinds),
        context_of(model.config),
        list(words.convert_ids_to_tokens(stop)),
    )


def _model(file: GGUFFile) -> Any:
    from transformers import AutoModelForCausalLM

    path = file.path
    try:
        with quiet():
            found: Any = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32, output_loading_info=True
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of any kind: the file is the user's
        raise DataError(f"{path}: cannot be loaded ({' '.join(str(error).split())[:300]})") from None
    read, report = found
    check_names(path, report)
    config = deepcopy(read.config)
    file.check_carried(read, config)
    config.vocab_size = read.get_input_embeddings().weight.shape[0]  # the file may have fewer rows than tokens
    del config.quantization_config  # it is unpacked, and a model that says otherwise is not written
    del config._model_name_or_path
    with torch.device("meta"):
        model = type(read)(config)
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    return model


def _own_tokenizer(file: GGUFFile) -> PreTrainedTokenizerBase:
    """The file's own.

    Raises:
        DataError: it cannot be made for certain.
    """
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    path = file.path
    if not file.settings.get("tokenizer.chat_template"):
        raise DataError(f"{path}: its tokenizer has no chat template: {_OTHER}")
    kind, split = (str(file.settings.get(f"tokenizer.ggml.{name}", "")) for name in ("model", "pre"))
    if kind not in ("gpt2", "llama") or (
        kind == "gpt2" and split not in _GPT2 | _DIGITS | set(GGUF_PRE_TOKENIZER_SPLITS)
    ):
        raise DataError(f"{path}: how its tokenizer ({kind} {split!r}) splits text is not known: {_OTHER}")
    try:
        words = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # of any kind: the file is the user's
        raise DataError(f"{path}: its tokenizer cannot be made ({error}): {_OTHER}") from None
    backend = words.backend_tokenizer
    if kind == "gpt2" and split in _DIGITS:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    begins = words.convert_ids_to_tokens(words("a", add_special_tokens=False).input_ids)[0].startswith("▁")
    if kind == "llama" and begins != bool(file.settings.get("tokenizer.ggml.add_space_prefix", True)):
        raise DataError(f"{path}: whether its tokenizer puts a space before a text would be lost: {_OTHER}")
    special = {name: getattr(words, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    plain = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **special)
    plain.chat_template = words.chat_template
    return plain


def _named_tokenizer(name: str, file: GGUFFile) -> PreTrainedTokenizerBase:
    """That of a model.

    Raises:
        DataError: its tokens are not those of the file.
    """
    from transformers import AutoTokenizer

    folder = find_model(name, weights=False).folder
    try:
        words = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # of any kind: the folder is the user's
        raise DataError(f"{folder}: no tokenizer there ({' '.join(str(error).split())[:200]})") from None
    tokens = file.settings.get("tokenizer.ggml.tokens", [])
    kinds = file.settings.get("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
    for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        if kind == _NORMAL and (other := words.convert_ids_to_tokens(i)) != token:
            raise DataError(f"{folder}: its token {i} is {other!r}, and that of {file.path} is {token!r}")
    return words
