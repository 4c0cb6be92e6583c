"""Weights that `vertigym tinker` keeps, as a model: `tinker://SESSION:train:0/sampler_weights/NAME[@STORE]`.

The one idea: what is kept are adapters over a base, and whatever reads models here reads model folders. So they
are merged once, in float32 as the server samples from them, to a folder beside them that goes when they go.
"""

import re
import warnings
from pathlib import Path

from vertigym.core.errors import DataError, MissingDependencyError
from vertigym.core.files import read_json
from vertigym.core.manifest import claim_folder, sealed_folder

SCHEME, STORE = "tinker://", Path("runs/tinker")
CHECKPOINT_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}"  # it becomes a folder's
_PATH = re.compile(rf"{SCHEME}([a-z0-9]+:train:\d+)/(weights|sampler_weights)/({CHECKPOINT_NAME})")
_KIND = "model folder"


def model_folder_name(model_id: str) -> str:
    """A file system's name for a model's id."""
    return model_id.replace(":", ".")


def place_of(path: str) -> Path | None:
    """Where below a store's `checkpoints` the weights of a `tinker://` path are; None: it is no such path."""
    found = _PATH.fullmatch(path)
    return Path(model_folder_name(found[1]), found[2], found[3]) if found else None


def merged_folder(name: str) -> Path:
    """The model folder of the weights called `name`, made where it is missing.

    Raises:
        DataError: nothing is saved there, or its base is gone. MissingDependencyError: peft is not installed.
    """
    adapters = _adapters(name)
    if not (folder := adapters / "merged").is_dir():
        _merge(adapters, folder)
    return folder


def export_weights(name: str, out: Path, *, force: bool = False) -> Path:
    """Write the weights called `name` to `out`, as a model folder in float32; the folder of their base.

    Raises:
        DataError, MissingDependencyError: as `merged_folder`. OutputError: `out` holds something else.
    """
    claim_folder(out, _KIND, force=force)
    return _merge(_adapters(name), out, force=force)


def _adapters(name: str) -> Path:
    path, _, store = name.partition("@")
    if not (place := place_of(path)):
        raise DataError(
            f"model {name!r}: no path of saved weights; tinker://SESSION:train:0/sampler_weights/NAME is one"
        )
    root = Path(store) if store else STORE
    if not (folder := root / "checkpoints" / place).is_dir():
        raise DataError(
            f"model {name!r}: nothing is saved there in {root}; where `vertigym tinker` has another --store, "
            f"say {path}@DIR"
        )
    return folder


def _merge(adapters: Path, out: Path, *, force: bool = False) -> Path:
    try:
        from peft import PeftModel
    except ImportError:
        raise MissingDependencyError("peft", "lora", "tinker:// weights") from None
    from vertigym.policies.model_folder import load_model

    base = Path(read_json(adapters / "adapter_config.json")["base_model_name_or_path"])
    model, tokenizer = load_model(base, device="cpu")
    model = model.float()
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:  # adapters of the head are none of the embedding
        head.weight = type(head.weight)(head.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="peft")  # of what it does for tied and transposed weights
        merged = PeftModel.from_pretrained(model, str(adapters)).merge_and_unload()
    with sealed_folder(out, _KIND, force=force) as beside:
        merged.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
    return base
