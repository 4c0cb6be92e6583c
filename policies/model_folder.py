"""Models and tokenizers from Hugging Face model folders."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from vertigym.core.errors import DataError


def load_model(folder: str | Path, device: str = "auto") -> tuple[Any, PreTrainedTokenizerBase]:
    """`(model, tokenizer)` of a folder, on the GPU where there is one, in the folder's dtype.

    Raises:
        DataError: the folder is missing or holds no loadable model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # vertigym draws its own
    _check(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise _unloadable(folder, error) from None
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    for weight in model.parameters():
        weight.data = weight.data.clone()  # the mapped file may start anywhere, and sums round by alignment
    return model.to(where).eval(), tokenizer


def load_tokenizer(folder: str | Path) -> tuple[PreTrainedTokenizerBase, Any, Any]:
    """`(tokenizer, model config, generation config)` of a folder, for an engine that loads the weights itself.

    Raises:
        DataError: the folder is missing or holds none.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    _check(folder)
    try:
        config = AutoConfig.from_pretrained(folder)
        named = (Path(folder) / "generation_config.json").is_file()
        generation = GenerationConfig.from_pretrained(folder) if named else config
        return AutoTokenizer.from_pretrained(folder), config, generation
    except (OSError, ValueError, KeyError) as error:
        raise _unloadable(folder, error) from None


def _check(folder: str | Path) -> None:
    if not (Path(folder) / "config.json").is_file():
        raise DataError(f"model folder {folder}: no config.json there; give a Hugging Face model folder")


def _unloadable(folder: str | Path, error: Exception) -> DataError:
    return DataError(f"model folder {folder}: cannot be loaded ({str(error).splitlines()[0]})")
