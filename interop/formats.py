"""Which program wrote a file of results, and its reader.

A file is known by what is in it, not by its name: only a ZIP of Inspect's has to end in `.eval`. A folder
stands for the results in it: one report, one run of verifiers, or one file a benchmark of Inspect or lm-eval.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vertigym.core.bounds import json_value
from vertigym.core.errors import DataError
from vertigym.core.files import read_json, read_text
from vertigym.evals.report import Report
from vertigym.interop.inspect_logs import read_inspect_log
from vertigym.interop.lm_eval_samples import is_lm_eval, read_lm_eval_samples
from vertigym.interop.results import ForeignEval, Reading, foreign_report
from vertigym.interop.verifiers_traces import is_verifiers, read_verifiers_traces

Reader = Callable[[Path, Reading], ForeignEval]
LINES: tuple[tuple[Callable[[Any], bool], Reader], ...] = (
    (is_lm_eval, read_lm_eval_samples),
    (is_verifiers, read_verifiers_traces),
)
RESULTS = ("*.eval", "samples_*.jsonl", "traces.jsonl", "*.json")  # in a folder, the first kind that is there


def load_results(path: Path, reading: Reading = Reading()) -> Report:  # noqa: B008 (frozen)
    """A report of ours, or one made of another program's results; `reading` is for the latter.

    Raises:
        DataError: missing, or nothing that is read here. ConfigError: a choice is left open.
    """
    if path.is_dir() and not (path / "report.json").exists():
        kinds = ([file for file in sorted(path.glob(kind)) if _reader(file)] for kind in RESULTS)
        files = next((found for found in kinds if found), [])
    else:
        files = [path] if not path.is_dir() and _reader(path) else []
    found = [(reader, file) for file in files if (reader := _reader(file))]
    return foreign_report([reader(file, reading) for reader, file in found]) if found else Report.load(path)


def _reader(file: Path) -> Reader | None:
    """Who reads a file; None where it is ours or nobody's."""
    if file.suffix == ".eval":
        return read_inspect_log
    if file.suffix == ".jsonl":
        first = _first_line(file)
        return next((reader for fits, reader in LINES if fits(first)), None)
    found = read_json(file) if file.suffix == ".json" else None
    is_log = isinstance(found, dict) and {"version", "status", "eval"} <= set(found)
    return read_inspect_log if is_log else None


def _first_line(file: Path) -> Any:
    line = next((line for line in read_text(file).splitlines() if line.strip()), "")
    try:
        return json_value(line)
    except ValueError as error:
        raise DataError(f"{file}:1: not JSON ({error})") from None
