"""What a folder of runs holds: runs with their state, reports to compare, and environments that runs name.

The folder is looked at anew at each call; of a run's files only what has changed is read again.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vertigym.core.config import read_toml
from vertigym.core.errors import DataError, InputError, UnknownNameError
from vertigym.reports.run_page import RunPage
from vertigym.trainer.explained_run import explain
from vertigym.trainer.run_files import is_run, step_of

Json = dict[str, Any]
_DEEP = 3  # folders between the root and a run: a project's runs, those of several names
_EVALS = ("*/report.json", "*/*/report.json")
_POINTS = 60  # of a small curve
_QUIET_S, _QUIET_STEPS = 120, 5  # without a row for so long, a run has stopped


class RunList:
    """The runs in `root`, which may be a run itself.

    Raises:
        DataError: there is no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder: name the one that your runs are in, or start a run first")
        self.root = root
        self._pages: dict[str, RunPage] = {}

    def names(self) -> list[str]:
        """Runs by their path in the folder, the newest first."""
        if is_run(self.root):
            return [self.root.resolve().name]
        found = sorted(_runs_in(self.root, _DEEP), key=_changed, reverse=True)
        return [str(path.relative_to(self.root)) for path in found]

    def page(self, name: str) -> RunPage:
        """A run's page, made of what it has of the call before.

        Raises:
            UnknownNameError: no such run.
        """
        if name not in (names := self.names()):
            raise UnknownNameError("run", name, names)
        folder = self.root if is_run(self.root) else self.root / name
        return self._pages.setdefault(name, RunPage(folder))

    def state(self) -> str:
        """Another text whenever a run has changed; and now and then, since a run that does nothing stops."""
        states = "-".join(self.page(name).state() for name in self.names())
        return f"{states}-{time.time() // _QUIET_S:.0f}"

    def rows(self) -> list[Json]:
        """Every run at a glance."""
        return [_row(name, self.page(name)) for name in self.names()]

    def reports(self) -> dict[str, Path]:
        """Every report by its path in the folder: those of runs by step, then eval folders."""
        found = [
            file
            for name in self.names()
            for by_step in self.page(name).run.eval_files().values()
            for file in by_step.values()
        ]
        found += [file.parent for pattern in _EVALS for file in sorted(self.root.glob(pattern))]
        return {str(file.relative_to(self.root)): file for file in found}

    def rule_texts(self, report: str) -> Mapping[str, str]:
        """The rules of a run's report in words, by id; none for an eval folder, which names no environment."""
        of = [name for name in self.names() if report.startswith(f"{name}/evals/") or is_run(self.root)]
        return explain(self.page(of[0]).run).rules if of else {}

    def environments(self) -> list[str]:
        """What runs name as their environment, and folders beside them."""
        named = [str(_config(self.page(name)).get("env", "")) for name in self.names()]
        near = [root.glob("*/env.toml") for root in (self.root, self.root.resolve().parent)]
        return list(dict.fromkeys([*filter(None, named), *(str(f.parent) for files in near for f in files)]))


def _runs_in(folder: Path, deep: int) -> Iterator[Path]:
    """Runs in a folder and in those in it; in a run's own, only the stages of its recipe."""
    for path in sorted(folder.iterdir()):
        if is_run(path):
            yield path
            path = path / "stages"
        if deep and path.is_dir() and path.name[0] != ".":
            yield from _runs_in(path, deep - 1)


def _changed(folder: Path) -> float:
    newest = folder / "metrics.jsonl"
    return (newest if newest.exists() else folder / "config.toml").stat().st_mtime


def _config(page: RunPage) -> Json:
    return read_toml(page.run.folder / "config.toml")


def _row(name: str, page: RunPage) -> Json:
    try:
        return {"name": name} | _at_a_glance(page)
    except InputError as error:  # one broken run hides no other
        return {"name": name, "error": str(error)}


def _at_a_glance(page: RunPage) -> Json:
    metrics, config = page.metrics, _config(page)
    metrics.read_on()
    last = next(reversed(page.run.gates()), None)
    promoted = page.run.promotion()
    measure = "reward" if metrics.last("reward") is not None else "loss"
    return {
        "status": _status(page, config),
        "steps": f"{metrics.last_step:,} of {config['steps']:,}"
        if "steps" in config
        else str(metrics.last_step),
        "model": str(config.get("model", "")),
        "env": str(config.get("env", "")),
        "ships": promoted["checkpoint"] if promoted else "",
        "gate": last and {key: last[key] for key in ("step", "verdict", "reason")},
        "measure": measure,
        "last": metrics.last(measure),
        "points": metrics.curve(measure, _POINTS),
    }


def _status(page: RunPage, config: Json) -> str:
    """In a word; a run is under way when its last row is not older than a few of its steps."""
    if page.metrics.last_step >= config.get("steps", float("inf")):
        return "finished"
    patience = max(_QUIET_S, _QUIET_STEPS * (page.metrics.last("seconds") or 0))
    return "under way" if time.time() - _changed(page.run.folder) < patience else "stopped"


def report_groups(reports: dict[str, Path]) -> list[Json]:
    """Reports to choose from: of each suite of a run by step, and eval folders."""

    def labelled() -> Iterator[tuple[str, str, str]]:
        for name, path in reports.items():
            step = path.suffix == ".json"
            yield (str(Path(name).parent), name, f"step {step_of(path):,}") if step else ("evals", name, name)

    groups: dict[str, list[list[str]]] = {}
    for group, name, label in labelled():
        groups.setdefault(group, []).append([name, label])
    return [{"name": name, "reports": found} for name, found in groups.items()]
