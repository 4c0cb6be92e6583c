"""Which format a file of rules has, and the decision model in it.

    .json           a decision model of the engine (JDM)
    .dmn, .xml      DMN 1.1 to 1.6
    .csv, .xlsx     a table with a header row of conditions and outcomes

A file of another name is known by its first bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vertigym.core.errors import DataError
from vertigym.decisions.model import DecisionError, DecisionModel, Engine
from vertigym.decisions.protocols import RuleModel

FORMATS = {".json": "jdm", ".dmn": "dmn", ".xml": "dmn", ".csv": "csv", ".tsv": "csv", ".xlsx": "xlsx"}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a file of rules is read, where it leaves a choice: the `sheet` of a workbook; what is declared of a
    spreadsheet's `columns`, header -> words (`spreadsheets/declared.py`); which `decisions` of a DMN file are
    asked for; what runs a model's JavaScript, `scripts`."""

    sheet: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    decisions: tuple[str, ...] = ()
    scripts: Engine | None = None


def read_model(file: Path, how: ReadOptions = ReadOptions()) -> RuleModel:
    """The decision model in a file of any known format.

    Raises:
        DecisionError: the file's content cannot be used, or has no such decision or column. DataError: there is
            no such file.
        MissingDependencyError: the package that reads its format is not installed.
    """
    form = guess(file)
    if how.columns and form not in ("csv", "xlsx"):
        raise DecisionError(f"{file}: only the columns of a spreadsheet are declared")
    try:
        if form == "dmn":
            from vertigym.decisions.dmn.dmn_model import DmnModel

            return DmnModel(file, how.decisions)
        if how.decisions:
            raise DecisionError(f"{file}: only a DMN file holds several decisions to choose from")
        if form in ("csv", "xlsx"):
            from vertigym.decisions.spreadsheets.sheet_reader import read_sheet

            found = read_sheet(file, how.sheet, how.columns)
            return DecisionModel(found.text, str(file), notes=found.notes)
        return DecisionModel.read(file, how.scripts)
    except RecursionError:
        raise DecisionError(f"{file}: something in it is nested too deeply") from None


def guess(file: Path) -> str:
    """The format's name.

    Raises:
        DataError: there is no such file. DecisionError: none of the known formats.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    if form := FORMATS.get(file.suffix.lower()):
        return form
    with file.open("rb") as opened:
        head = opened.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    for start, form in ((b"{", "jdm"), (b"<", "dmn"), (b"PK\x03\x04", "xlsx")):
        if head.startswith(start):
            return form
    raise DecisionError(f"{file}: not a known format of rules; known: {', '.join(FORMATS)}")
