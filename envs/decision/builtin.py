"""The environments vertigym ships: two decision models of our own, each a folder that `import_decision` made.

`python -m vertigym.envs.decision.builtin` makes the folders anew from the decision models in them.
"""

from importlib.resources import files
from pathlib import Path

from vertigym.core.types import Split
from vertigym.envs.decision.config import OLD_DECISION
from vertigym.envs.decision.importer import DecisionImportReport, import_decision
from vertigym.envs.folders import EnvFolder
from vertigym.envs.registry import register

__all__ = ["CREDIT_LIMIT", "OLD_DECISION", "RETURNS", "folder_of", "rebuild"]

RETURNS = "vertigym/Returns-v0"
CREDIT_LIMIT = "vertigym/CreditLimit-v0"

_FOLDERS = {RETURNS: "returns", CREDIT_LIMIT: "credit_limit"}
_SIZES: dict[Split, int] = {"train": 1200, "eval": 300, "test": 400}
_DESCRIPTIONS = {
    RETURNS: "A shop's returns policy: take back, credit, review or reject; the fee; the desk that handles it.",
    CREDIT_LIMIT: "A bank's credit-limit change: approve, review or decline; the raise in per cent; why.",
}


def folder_of(id: str) -> Path:  # noqa: A002 (the registry's name for it)
    """Where a built-in environment lies."""
    return Path(str(files("vertigym.envs.decision"))) / _FOLDERS[id]


def rebuild(id: str, out: Path) -> DecisionImportReport:  # noqa: A002
    """Import a built-in's decision model into `out`."""
    source = folder_of(id) / "decision.json"
    return import_decision(
        source,
        id,
        out,
        sizes=_SIZES,
        description=_DESCRIPTIONS[id],
        keep=[OLD_DECISION],
        shares=False,  # the tasks stay what they were, so that figures measured on them stay comparable
        contrast=False,
    )


for _id in _FOLDERS:
    _folder = EnvFolder(folder_of(_id), trusted=True)
    register(_id, "vertigym.envs.decision.env:load", description=_DESCRIPTIONS[_id], folder=_folder)

if __name__ == "__main__":
    for _id in _FOLDERS:
        rebuild(_id, folder_of(_id))
