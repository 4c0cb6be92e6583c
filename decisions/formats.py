"""Which format a file of rules has, and the decision model in it.

    .json           a decision model of the engine (JDM)
    .dmn, .xml      DMN 1.1 to 1.6
    .csv, .xlsx     a table with a header row of conditions and outcomes

A file of another name is known by its first bytes.
"""

from collections.abc import Sequence
from pathlib import Path

from vertigym.core.errors import DataError
from vertigym.decisions.model import DecisionError, DecisionModel, Engine
from vertigym.decisions.protocols import RuleModel

FORMATS = {".json": "jdm", ".dmn": "dmn", ".xml": "dmn", ".csv": "csv", ".tsv": "csv", ".xlsx": "xlsx"}


def read_model(
    file: Path, sheet: str = "", scripts: Engine | None = None, decisions: Sequence[str] = ()
) -> RuleModel:
    """The decision model in a file of any known format; `sheet` names a sheet of a workbook, `decisions`
    those of a DMN file that are asked for.

    Raises:
        DecisionError: the file's content cannot be used, or has no such decision. DataError: there is no
            such file.
        MissingDependencyError: the package that reads its format is not installed.
    """
    form = guess(file)
    try:
        if form == "dmn":
            from vertigym.decisions.dmn.dmn_model import DmnModel

            return DmnModel(file, decisions)
        if decisions:
            raise DecisionError(f"{file}: only a DMN file holds several decisions to choose from")
        if form in ("csv", "xlsx"):
            from vertigym.decisions.sheets import read_sheet

            return DecisionModel(read_sheet(file, sheet), str(file))
        return DecisionModel.read(file, scripts)
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
