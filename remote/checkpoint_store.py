"""Saved weights by their `tinker://` paths: a folder each, whole or not at all.

    tinker://SESSION:train:0/weights/NAME           adapters and optimizer, to train on from
    tinker://SESSION:train:0/sampler_weights/NAME   adapters, to sample from

Both are folders that `peft` loads; `saved.json` beside the weights says what base and shape they are of.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vertigym.core.files import read_json, whole_folder, write_json
from vertigym.dialects.chat_call import RefusedError
from vertigym.policies.tinker_weights import model_folder_name, place_of
from vertigym.remote.call_models import AdapterShape

TRAINING, SAMPLER = "weights", "sampler_weights"
_SAVED = "saved.json"


@dataclass(frozen=True, slots=True)
class SavedWeights:
    """A folder of weights, and what they are of."""

    folder: Path
    said: dict[str, Any]

    @property
    def base_model(self) -> str:
        """The base's name."""
        return str(self.said["base_model"])

    @property
    def shape(self) -> AdapterShape:
        """Of the adapters."""
        return AdapterShape.model_validate(self.said["shape"])

    @property
    def path(self) -> str:
        """`tinker://…`; empty for those of one sampling session."""
        return str(self.said["path"])

    def listed(self) -> dict[str, Any]:
        """As clients list checkpoints."""
        _, kind, name = self.path.removeprefix("tinker://").split("/")
        return {
            "checkpoint_id": f"{kind}/{name}",
            "checkpoint_type": "training" if kind == TRAINING else "sampler",
            "time": self.said["time"],
            "tinker_path": self.path,
            "size_bytes": sum(file.stat().st_size for file in self.folder.iterdir() if file.is_file()),
            "user_metadata": self.said["user_metadata"],
        }


def write_saved(
    folder: Path,
    write: Callable[[Path], None],
    *,
    base_model: str,
    shape: AdapterShape,
    path: str = "",
    by: str = "",
    user_metadata: dict[str, str] | None = None,
) -> None:
    """Fill a folder with weights and what is said of them; `by`: the request that asked for it."""
    with whole_folder(folder) as beside:
        write(beside)
        said = {
            "path": path,
            "by": by,
            "base_model": base_model,
            "shape": shape.model_dump(),
            "time": datetime.now(UTC).isoformat(),
            "user_metadata": user_metadata or {},
        }
        write_json(beside / _SAVED, said)


def read_saved(folder: Path) -> SavedWeights:
    """Weights in a folder."""
    return SavedWeights(folder, read_json(folder / _SAVED))


class CheckpointStore:
    """The folder of all that was saved under a name."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, path: str) -> Path:
        """
        Raises:
            RefusedError: this is no path of saved weights.
        """
        if not (place := place_of(path)):
            raise RefusedError(400, f"{path[:200]!r} is no tinker:// path of weights or sampler_weights")
        return self._root / place

    def find(self, path: str) -> SavedWeights:
        """
        Raises:
            RefusedError: nothing was saved there.
        """
        folder = self.folder(path)
        if not folder.is_dir():
            raise RefusedError(404, f"nothing is saved at {path}")
        return read_saved(folder)

    def delete(self, path: str) -> None:
        """
        Raises:
            RefusedError: nothing was saved there.
        """
        shutil.rmtree(self.find(path).folder)

    def all(self, model_id: str = "") -> Iterator[SavedWeights]:
        """Everything saved, or what one model saved; the oldest first."""
        within = model_folder_name(model_id) if model_id else "*"
        files = self._root.glob(f"{within}/*/*/{_SAVED}")
        found = [read_saved(file.parent) for file in files if not file.parent.name.startswith(".")]
        yield from sorted(found, key=lambda saved: saved.said["time"])
