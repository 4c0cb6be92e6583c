"""Checkpoints: a plain Hugging Face model folder, the trainer's state beside it, and a manifest of digests.

    step-000100/
      config.json, model.safetensors, tokenizer.json, …   loads with transformers as it is
      trainer/state.pt                                      what resuming needs: optimizer, adapters
      trainer/critic/                                       the critic of PPO, likewise
      trainer/curriculum/                                   the accuracies that steer it
      trainer/rollouts/                                     rollouts that wait to be trained on
      manifest.json                                         step, and the sha256 of every file

All random numbers of a run are derived from its seed and the step, so there is no generator state to keep.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from vertigym.core import manifest
from vertigym.core.files import whole_folder
from vertigym.learner.ranks import SINGLE_RANK, Ranks
from vertigym.policies.lora import merged_state


class Stateful(Protocol):
    """What has a state to keep: a learner, rollouts that wait to be trained on."""

    def save_state(self, folder: Path) -> None:
        """Write it to `folder`; called on every rank where all are needed to put it together."""
        ...


def save(
    folder: Path,
    model: Any,
    tokenizer: Any,
    parts: Mapping[str, Stateful],
    *,
    step: int,
    ranks: Ranks = SINGLE_RANK,
) -> None:
    """Write a checkpoint, whole or not at all. `parts`: whose state to keep, by sub-folder of `trainer/`. Every
    rank takes part, the leader writes."""
    weights = merged_state(model, ranks.keep_on_leader)
    if not ranks.leader:
        for name, part in parts.items():
            part.save_state(folder / "trainer" / name)
        return
    with whole_folder(folder) as beside:
        model.save_pretrained(beside, state_dict=weights)
        tokenizer.save_pretrained(beside)
        for name, part in parts.items():
            part.save_state(beside / "trainer" / name)
        manifest.seal(beside, step=step)


def verify(folder: Path) -> int:
    """The checkpoint's step, once every file matches its digest.

    Raises:
        DataError: a file is missing or damaged (names it).
    """
    return int(manifest.verify(folder)["step"])


def prune(folder: Path, *, keep: int, spared: set[str]) -> None:
    """Delete all but the first, the `keep` latest, and the `spared` checkpoints of a run."""
    names = sorted(path.name for path in folder.glob("step-*"))
    for name in set(names) - {names[0], *names[-keep:]} - spared if names else ():
        shutil.rmtree(folder / name)
