"""lm-eval's sample files (`samples_TASK_TIME.jsonl`, written with `--log_samples`) as evals to compare.

A line is one document under one filter, with a value for each metric of the task. A score is named as in
lm-eval's own results, `metric,filter`. Which model answered stands only in the folder's name. Metrics that a
corpus has and a document does not (perplexities, BLEU) are no numbers in the file, and cannot be compared by
sample.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import read_jsonl
from vertigym.interop.results import ForeignEval, ForeignSample, Reading, number

FILE = re.compile(r"samples_(.+)_(\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")
LESS_IS_BETTER = ("brier_score", "perplexity", "ter", "bits_per_byte")  # of lm-eval's metrics


def is_lm_eval(row: Any) -> bool:
    """Whether a line is a document that lm-eval scored."""
    return isinstance(row, Mapping) and {"doc_id", "doc", "target", "resps"} <= set(row)


def read_lm_eval_samples(path: Path, reading: Reading = Reading()) -> ForeignEval:  # noqa: B008 (frozen)
    """One sample file.

    Raises:
        DataError: not such a file, or no value of the metric is a number. ConfigError: several metrics or
            filters and none chosen, or one where less is better.
    """
    rows = read_jsonl(path)
    for line, row in enumerate(rows, 1):
        if not is_lm_eval(row):
            raise DataError(f"{path}:{line}: not a sample of lm-eval (doc_id, doc, target, resps)")
    names = dict.fromkeys(
        name for row in rows for name, value in _values(row).items() if number(value) is not None
    )
    chosen = reading.chosen(list(names), path)
    if chosen.partition(",")[0] in LESS_IS_BETTER:
        raise ConfigError(
            f"{path}: {chosen} is better when it is less: a score to compare is better when it is more"
        )
    found = FILE.fullmatch(path.name)
    kept = [row for row in rows if _name(chosen.partition(",")[0], row) == chosen]
    return ForeignEval(
        name=found[1] if found else path.stem,
        model=path.resolve().parent.name,
        samples=[_sample(row, rows, chosen, reading.cluster, path) for row in kept],
        source=path,
        started=found[2] if found else "",
    )


def _sample(
    row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], chosen: str, cluster: str, path: Path
) -> ForeignSample:
    values = _values(row)
    if cluster and cluster not in row["doc"]:
        raise DataError(
            f"{path}: document {row['doc_id']} has no field {cluster!r}, which says what its cluster is"
        )
    parts = {
        name: found for name, value in values.items() if name != chosen and (found := number(value)) is not None
    }
    return ForeignSample(
        task=str(row["doc_id"]),
        content=[row["doc"], row["target"]],
        epoch=1,
        score=number(values[chosen]),
        reason=f"{chosen} is no number",
        parts=parts,
        cluster=str(row["doc"][cluster]) if cluster else "",
    )


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    """The document's values by `metric,filter`."""
    metrics = row.get("metrics") or [
        name for name, value in row.items() if name != "doc_id" and isinstance(value, int | float)
    ]
    return {_name(metric, row): row.get(metric) for metric in metrics}


def _name(metric: str, row: Mapping[str, Any]) -> str:
    return f"{metric},{row.get('filter', 'none')}"
