"""Where a model comes from: a folder, a run, the Hugging Face hub, or a store of `vertigym tinker`.

    models/mine                 a model folder
    runs/loan                   a run's folder: the checkpoint that was promoted in it
    org/name, org/name@REV      a model of the hub: its copy in the cache, else it is downloaded
    tinker://…, tinker://…@DIR  weights that a client of `vertigym tinker` saved, merged into their base

The one idea: a name is resolved once, to a folder and to a name that will mean the same tomorrow, when the run
has promoted another checkpoint or the hub has another version. A folder wins over a model of the hub.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertigym.core.errors import DataError
from vertigym.core.files import read_json
from vertigym.policies.tinker_weights import SCHEME, merged_folder

_HUB_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([^@\s]+))?")
_HUB_FILE = re.compile(r"(\w[\w.-]*/\w[\w.-]*)/([^/@]+)(?:@([^@\s]+))?")
_DESCRIPTION = ["*.json", "*.jinja", "*.model", "*.txt"]  # of a model on the hub: all but its weights
_WEIGHTS = ("*.safetensors", "*.bin")  # the second where the first are missing
_ELSEWHERE = ["*/*", "consolidated*", "training_args.bin"]  # the same weights again, for other programs


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model folder, and the name that leads to it again: a checkpoint for a run, a commit for a model of the
    hub."""

    folder: Path
    name: str


def find_model(name: str | Path, *, weights: bool = True) -> ModelSource:
    """The model called `name`.

    Args:
        weights: they are needed; without them the tokenizer and the config are.

    Raises:
        DataError: there is none; or a run has promoted nothing; or the hub cannot be reached.
        MissingDependencyError: it is of a `tinker://` path, and peft is not installed.
    """
    if str(name).startswith(SCHEME):
        return ModelSource(merged_folder(str(name)), str(name))
    folder, (plain, _, revision) = Path(name), str(name).partition("@")
    if folder.is_dir():
        alone = not weights and (folder / "tokenizer_config.json").is_file()
        return ModelSource(folder, str(folder)) if alone else _in_folder(folder)
    if revision and Path(plain).is_dir():
        raise DataError(f"model {name}: {plain} is a folder, and only models of the hub have revisions")
    if folder.is_file():
        raise DataError(f"model {name}: is a file; {_import(folder)}")
    hub = _HUB_NAME.fullmatch(str(name))
    if not hub:
        raise DataError(
            f"model {str(name)!r}: no such folder, and no name of a model of the Hugging Face hub (org/name or "
            "org/name@REVISION)"
        )
    if not weights:
        return _on_hub(hub[1], hub[2] or "main", [_DESCRIPTION], _lacks_words)
    return _on_hub(
        hub[1],
        hub[2] or "main",
        [(*_DESCRIPTION, kind) for kind in _WEIGHTS],
        lambda copy: _lacks_words(copy) or _lacks_weights(copy),
    )


def find_file(name: str) -> Path:
    """The file called `name`: a path, or `org/name/FILE` and `org/name/FILE@REVISION` on the hub.

    Raises:
        DataError: there is none, or the hub cannot be reached.
    """
    if Path(name).is_file():
        return Path(name)
    hub = _HUB_FILE.fullmatch(name)
    if not hub:
        raise DataError(f"{name}: no such file, and no name of one on the Hugging Face hub (org/name/FILE)")
    repo, file, revision = hub.groups()
    found = _on_hub(repo, revision or "main", [[file]], lambda copy: "" if (copy / file).is_file() else file)
    return found.folder / file


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run."""
    return (folder / "config.toml").is_file()


def promotion(run: Path) -> dict[str, Any] | None:
    """`step`, `checkpoint` (relative to the run) and `reason` of what ships, if any was promoted."""
    file = run / "promoted.json"
    return dict(read_json(file)) if file.exists() else None


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, in the order of their steps."""
    return sorted(run.glob("checkpoints/step-*"))


def _in_folder(folder: Path) -> ModelSource:
    if (folder / "config.json").is_file():
        return ModelSource(folder, str(folder))
    if is_run(folder):
        return _in_run(folder)
    files = sorted(folder.glob("*.gguf"))
    raise DataError(
        f"model folder {folder}: no config.json there; "
        + (_import(files[0]) if files else "give a Hugging Face model folder, or the folder of a run")
    )


def _import(file: Path | str) -> str:
    return f"make a model folder of a GGUF file with `vertigym model import {file} -o DIR`"


def _in_run(run: Path) -> ModelSource:
    if found := promotion(run):
        checkpoint = run / str(found["checkpoint"])
        if not checkpoint.is_dir():
            raise DataError(f"run {run}: {checkpoint}, which was promoted, is gone")
        return ModelSource(checkpoint, str(checkpoint))
    there = ", ".join(map(str, checkpoints(run)))
    raise DataError(
        f"run {run}: nothing was promoted in it; "
        + (f"name one of its checkpoints: {there}" if there else "and it has no checkpoint yet")
    )


def _on_hub(
    repo: str, revision: str, patterns: Sequence[Sequence[str]], lacks: Callable[[Path], str]
) -> ModelSource:
    """The copy in the cache where it is whole, without any request; else what it lacks is downloaded: the files
    of the first patterns, and of the next where `lacks` still names something."""
    from huggingface_hub import constants

    try:
        folder = _snapshot(repo, revision, patterns[0], local_files_only=True)
        lack = lacks(folder)
    except FileNotFoundError:
        lack = revision
    if lack and constants.HF_HUB_OFFLINE:
        raise _not_there(
            repo,
            f"the cache {constants.HF_HUB_CACHE} lacks {lack}, and HF_HUB_OFFLINE is set: unset it, or fill "
            f"the cache with `hf download {repo} --revision {revision}` where there is a network",
        )
    for wanted in patterns if lack else ():
        folder = _download(repo, revision, wanted)
        if not (lack := lacks(folder)):
            break
    if lack:
        raise _not_there(repo, f"it lacks {lack}; where it has a GGUF file, {_import(f'{repo}/FILE.gguf')}")
    return ModelSource(folder, f"{repo}@{folder.name}")


def _snapshot(repo: str, revision: str, wanted: Sequence[str], **how: Any) -> Path:
    from huggingface_hub import snapshot_download

    found = snapshot_download(
        repo, revision=revision, allow_patterns=list(wanted), ignore_patterns=_ELSEWHERE, **how
    )
    return Path(found)


def _download(repo: str, revision: str, wanted: Sequence[str]) -> Path:
    """
    Raises:
        DataError: the hub does not give it.
    """
    from huggingface_hub import constants, errors

    try:
        return _snapshot(repo, revision, wanted)
    except errors.GatedRepoError:
        why = f"accept its terms at {constants.ENDPOINT}/{repo}, then `hf auth login`"
    except errors.RepositoryNotFoundError:
        why = f"{constants.ENDPOINT} has none of this name (a private one needs `hf auth login`)"
    except errors.RevisionNotFoundError:
        why = f"it has no revision {revision!r}"
    except Exception as error:  # of any kind: the network's, the disk's
        said = " ".join(str(error.__cause__ or error).split())[:200]
        why = (
            f"{constants.ENDPOINT} did not give it ({said}): try again, or fill the cache "
            f"{constants.HF_HUB_CACHE} with `hf download {repo}` where there is a network"
        )
    raise _not_there(repo, why)


def _not_there(repo: str, why: str) -> DataError:
    return DataError(f"model {repo!r}: no such folder; as a model of the Hugging Face hub: {why}")


def _lacks_words(folder: Path) -> str:
    if not (folder / "config.json").is_file():
        return "config.json"
    return "" if any(folder.glob("*token*")) else "a tokenizer"


def _lacks_weights(folder: Path) -> str:
    """What a copy lacks, or "": an interrupted download, or another program's, holds a part."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return ""
        if (index := folder / f"{name}.index.json").is_file():
            parts = sorted(set(read_json(index)["weight_map"].values()))
            return next((part for part in parts if not (folder / part).is_file()), "")
    return "weights"
