"""Models and tokenizers from Hugging Face folders, checked: every weight is there, is used, and is a number."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from vertigym.core.errors import DataError

_NO_LIMIT = 1 << 30  # of a model without positions of its own (recurrent layers, ALiBi)
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length")


def load_model(folder: str | Path, device: str = "auto") -> tuple[Any, PreTrainedTokenizerBase]:
    """`(model, tokenizer)` of a folder, on the GPU where there is one, in the folder's dtype.

    Raises:
        DataError: the folder is missing, holds no loadable model, lacks weights, or holds weights that the
            model does not use or that are no finite numbers.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _check_config(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        with quiet():
            found: Any = AutoModelForCausalLM.from_pretrained(
                folder, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of any kind: the folder is the user's
        raise _unloadable(folder, error) from None
    model, report = found
    check_names(folder, report)
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    broken = []
    for name, weight in model.named_parameters():
        weight.data = weight.data.clone()  # the mapped file may start anywhere, and sums round by alignment
        if not weight.isfinite().all():
            broken.append(name)
    if broken:
        raise DataError(f"model folder {folder}: weights that are NaN or infinite: {_list(broken)}")
    return model.to(where).eval(), tokenizer


def load_tokenizer(folder: str | Path) -> tuple[PreTrainedTokenizerBase, Any, Any]:
    """`(tokenizer, model config, generation config)` of a folder, for an engine that loads the weights itself.

    Raises:
        DataError: the folder is missing or holds none.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    _check_config(folder)
    try:
        config = AutoConfig.from_pretrained(folder)
        named = (Path(folder) / "generation_config.json").is_file()
        generation = GenerationConfig.from_pretrained(folder) if named else config
        return AutoTokenizer.from_pretrained(folder), config, generation
    except Exception as error:  # of any kind: the folder is the user's
        raise _unloadable(folder, error) from None


def context_of(config: Any) -> int:
    """The most positions of a model, by its config (of its text part, where it has several)."""
    text = config.get_text_config()
    return next((int(value) for key in _CONTEXT_KEYS if (value := getattr(text, key, None))), _NO_LIMIT)


def unreadable_ids(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> list[int]:
    """The ids in a model's vocabulary that its tokenizer does not know: vocabularies are padded."""
    known = set(tokenizer.get_vocab().values())
    return [i for i in range(vocabulary) if i not in known]


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bar and its table of names: one line says what is wrong."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _check_config(folder: str | Path) -> None:
    if not (Path(folder) / "config.json").is_file():
        raise DataError(f"model folder {folder}: no config.json there; give a Hugging Face model folder")


def check_names(folder: str | Path, report: dict[str, Any]) -> None:
    """Hold transformers' report on loading against what a model needs.

    Raises:
        DataError: names or shapes in the files are not those of the model.
    """
    faults = {
        "weights that the model needs are not in its files": report["missing_keys"],
        "weights in its files are not used by the model": report["unexpected_keys"],
        "weights have another shape than the model": [name for name, *_ in report["mismatched_keys"]],
    }
    for fault, names in faults.items():
        if names:
            raise DataError(f"model folder {folder}: {fault}: {_list(names)}")


def _list(names: Iterable[str], most: int = 3) -> str:
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _unloadable(folder: str | Path, error: Exception) -> DataError:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return DataError(f"model folder {folder}: cannot be loaded ({lines[0]})")
