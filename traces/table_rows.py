"""Rows with columns, wherever they lie: one reader for tasks, training data and projects.

    read_table("train.jsonl")                     also .csv, .tsv, .json, .parquet, with .gz or .zst
    read_table("saved/")          a folder that `datasets` saved (save_to_disk); extra `datasets`
    read_table("hf://openai/gsm8k/main:train@740312a")     configuration, split and revision may be left out

The one idea: what a log may have torn, data to learn from may not. A row that cannot be read ends it, with its
place. `columns` says which of their columns is which of ours: {"question": "problem"}; a path of keys with dots
leads into a cell of JSON.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vertigym.core.errors import ConfigError, DataError, MissingDependencyError, suggest
from vertigym.core.files import jsonable, read_text
from vertigym.traces.columns import at
from vertigym.traces.reading import rows
from vertigym.traces.records import Unreadable

HUB = "hf://"
_HUB_NAME = re.compile(
    r"hf:/{1,2}(?P<name>[\w.-]+(/[\w.-]+)?)(/(?P<config>[\w.-]+))?(:(?P<split>[\w.-]+))?(@(?P<revision>[\w./-]+))?"
)
_COMMIT = re.compile("[0-9a-f]{7,40}")
_SAVED = ("dataset_info.json", "dataset_dict.json")
_SPLITS = {"validation": "eval", "valid": "eval", "dev": "eval"}  # their names for ours


class CellsRow(NamedTuple):
    """A row and its place, for messages. Cells that are empty are left out."""

    where: str
    cells: dict[str, Any]


class TornRow(NamedTuple):
    """A row that cannot be read, and why."""

    where: str
    reason: str


def on_hub(source: str | Path) -> bool:
    """Whether it names a data set of a hub (a Path has lost one slash of `hf://`)."""
    return str(source).startswith(("hf:/", HUB))


def is_saved(source: str | Path) -> bool:
    """Whether it is a folder that `datasets` saved."""
    return any((Path(source) / name).is_file() for name in _SAVED)


def read_table(
    source: str | Path, *, split: str = "", columns: Mapping[str, str] | None = None
) -> Iterator[CellsRow]:
    """The rows. Of several splits all are read, each row with its `split`, or the one called `split`, where the
    source itself names none.

    Raises:
        DataError: missing, damaged, a row that is no row, or a column that `columns` names and no row has.
        ConfigError: `hf://…` that is no name. MissingDependencyError: `datasets`, or `duckdb` for Parquet.
    """
    for row in read_rows_or_why(source, split=split, columns=columns):
        if isinstance(row, TornRow):
            raise DataError(f"{row.where}: {row.reason}")
        yield row


def read_rows_or_why(
    source: str | Path, *, split: str = "", columns: Mapping[str, str] | None = None
) -> Iterator[CellsRow | TornRow]:
    """The same, with what cannot be read in its place.

    Raises:
        InputError: as `read_table`, but for single rows.
    """
    here = on_hub(source) or is_saved(source)
    found = _datasets_rows(source, split) if here else _file_rows(Path(source))
    return _mapped(found, columns, str(source)) if columns else found


def _file_rows(file: Path) -> Iterator[CellsRow | TornRow]:
    if file.is_dir():
        raise DataError(f"{file}: is a folder that `datasets` did not save; name its files")
    if not file.is_file():
        read_text(file)  # says what is wrong
    table = bool({".csv", ".tsv"} & {suffix.lower() for suffix in file.suffixes})
    for number, row, _ in rows(file):
        where = f"{file}:{number}"
        if isinstance(row, Unreadable):
            yield TornRow(where, row.reason)
        elif not isinstance(row, dict):
            yield TornRow(where, f"a row is an object with columns, got {type(row).__name__}")
        else:
            yield CellsRow(where, {key: cell for key, cell in row.items() if not (table and cell == "")})


def _datasets_rows(source: str | Path, split: str) -> Iterator[CellsRow | TornRow]:
    try:
        import datasets
    except ImportError:
        raise MissingDependencyError("datasets", "datasets", str(source)) from None
    named = _HUB_NAME.fullmatch(str(source)) if on_hub(source) else None
    if on_hub(source) and named is None:
        raise ConfigError(f"{source}: the form is hf://owner/name[/configuration][:split][@revision]")
    found = _from_hub(datasets, named) if named else _from_disk(datasets, source)
    if not isinstance(found, dict):
        found = {"": found}
    wanted = (named and named["split"]) or (split if len(found) > 1 else "")
    names = {name: _SPLITS.get(name, name) for name in found}
    chosen = [name for name, ours in names.items() if wanted in ("", name, ours)]
    if not chosen:
        raise DataError(f"{source}: no split {wanted!r}{suggest(wanted, found)}")
    for name in chosen:
        place = f"{source}:{name}" if name and not (named and named["split"]) else str(source)
        for number, row in enumerate(found[name], 1):
            cells = {key: cell for key, cell in jsonable(dict(row)).items() if cell is not None}
            own = {"split": names[name]} if len(chosen) > 1 and names[name] else {}
            yield CellsRow(f"{place}, row {number}", own | cells)


def _from_disk(datasets: Any, folder: str | Path) -> Any:
    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # Arrow and the library raise what they like
        raise DataError(f"{folder}: cannot be read as saved data: {_first_line(error)}") from None


def _from_hub(datasets: Any, named: re.Match[str]) -> Any:
    """From the hub, or from the cache where it cannot be reached. The library then takes what it has, of
    whatever revision.

    Raises:
        DataError: neither has it.
    """
    name, revision = f"{HUB}{named['name']}", named["revision"]
    try:
        found = datasets.load_dataset(named["name"], named["config"], revision=revision)
    except Exception as error:  # of the hub's client, the library, or the network
        raise DataError(
            f"{name}: neither the hub nor the cache (HF_HOME) gave it: {_first_line(error)}"
        ) from None
    cached = Path(next(iter(found.values())).cache_files[0]["filename"]).parent.name
    named_commit = bool(revision and _COMMIT.fullmatch(revision))
    if revision and not cached.startswith(revision) and (named_commit or datasets.config.HF_HUB_OFFLINE):
        raise DataError(
            f"{name}: the cache holds revision {cached}, not {revision}: name that one, or go online"
        )
    return found


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


def _mapped(
    found: Iterator[CellsRow | TornRow], columns: Mapping[str, str], source: str
) -> Iterator[CellsRow | TornRow]:
    """Rows with our names for their columns. A column that the first row lacks is nobody's."""
    for number, row in enumerate(found):
        if isinstance(row, TornRow):
            yield row
            continue
        cells = {ours: at(row.cells, theirs) for ours, theirs in columns.items()}
        lacking = [columns[ours] for ours, cell in cells.items() if cell is None]
        if lacking and not number:
            raise DataError(f"{source}: no column {lacking[0]!r}{suggest(lacking[0], row.cells)}")
        rest = {key: cell for key, cell in row.cells.items() if key not in columns.values()}
        yield CellsRow(row.where, rest | {ours: cell for ours, cell in cells.items() if cell is not None})
