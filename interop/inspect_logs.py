"""Inspect's logs, `.json` and `.eval`, as evals to compare.

The JSON form is read as it is, and so is a ZIP that Python can open. The `.eval` form is a ZIP, often of
Zstandard entries, and is read by the package `inspect_ai`, without messages and events. The words of the
format: https://inspect.aisi.org.uk/eval-logs.html.

A score is a number, true or false, a grade (`C` 1, `P` 0.5, `I` and `N` 0) or yes and no, as in Inspect's own
`value_to_float`; what Inspect would warn about and count as 0 is refused. NaN is Inspect's sign of
*unscored*; a sample with an error, without a score, or invalidated is not scored either.
"""

import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vertigym.core.bounds import json_value
from vertigym.core.errors import ConfigError, DataError, MissingDependencyError
from vertigym.core.files import MOST_CHARACTERS, read_json
from vertigym.interop import OURS
from vertigym.interop.results import ForeignEval, ForeignSample, Reading, number, text_of

VERSION = 2
GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Usage(_Read):
    input_tokens: int = 0
    input_tokens_cache_read: int | None = None
    input_tokens_cache_write: int | None = None
    output_tokens: int = 0


class _Score(_Read):
    value: Any = None
    explanation: str | None = None
    reason: str | None = None
    metadata: dict[str, Any] | None = None


class _Sample(_Read):
    id: int | str
    epoch: int
    input: str | list[dict[str, Any]]
    target: Any = ""
    choices: Any = None
    scores: dict[str, _Score] | None = None
    metadata: dict[str, Any] = {}
    error: dict[str, Any] | None = None
    invalidation: Any = None
    model_usage: dict[str, _Usage] = {}
    total_time: float | None = None


class _Config(_Read):
    epochs: int | None = None
    epochs_reducer: list[str] | None = None


class _Eval(_Read):
    task: str
    model: str
    created: str
    config: _Config = _Config()
    scorers: Any = None
    metrics: Any = None
    metadata: dict[str, Any] | None = None


class _Log(_Read):
    version: int
    status: str
    eval: _Eval
    samples: list[_Sample] | None = Field(None, min_length=1)


def read_inspect_log(path: Path, reading: Reading = Reading()) -> ForeignEval:  # noqa: B008 (frozen)
    """One log.

    Raises:
        DataError: not a log, of another version, unfinished, or without samples. ConfigError: a choice is left
            open: several scores, several clusters, or a way of reducing epochs that is no mean over them.
        MissingDependencyError: a `.eval` file, and Inspect is not installed.
    """
    log = _parsed(path)
    if log.status != "success":
        raise DataError(f"{path}: the eval did not finish (status {log.status!r}): complete it, then compare")
    if not log.samples:
        raise DataError(f"{path}: a log without samples: write it with log_samples on")
    ours = (log.eval.metadata or {}).get(OURS) or {}
    chosen = reading.chosen(_names(log), path)
    cluster = reading.cluster or _cluster_key(log, path)
    return ForeignEval(
        name=log.eval.task,
        model=log.eval.model,
        samples=[_sample(sample, log, chosen, cluster, path) for sample in log.samples],
        source=path,
        started=log.eval.created,
        weight=number(ours.get("weight")) or 1.0,
        metrics=_reduced(log, path),
        ranges=ours.get("ranges") or {},
    )


def _parsed(path: Path) -> _Log:
    found = _unzipped(path) if path.suffix == ".eval" else read_json(path)
    version = found.get("version") if isinstance(found, dict) else None
    if version != VERSION:
        raise DataError(f"{path}: an Inspect log of version {version!r}; version {VERSION} is read")
    try:
        return _Log.model_validate(found)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise DataError(f"{path}: not an Inspect log: {where}: {fault['msg']}") from None


def _unzipped(path: Path) -> Any:
    """The log in an `.eval` file. What this Python cannot unpack (Zstandard before 3.14) is for Inspect."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as log:
            if sum(entry.file_size for entry in log.infolist()) > MOST_CHARACTERS:
                raise DataError(f"{path}: too large: at most {MOST_CHARACTERS:,} bytes are read")
            names = [name for name in dict.fromkeys(log.namelist()) if name.startswith("samples/")]
            found = json_value(log.read("header.json").decode())
            return {**found, "samples": [json_value(log.read(name).decode()) for name in names]}
    except NotImplementedError:
        return _with_inspect(path)
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(f"{path}: not an Inspect log, or an unfinished one: {error}") from None


def _with_inspect(path: Path) -> Any:
    try:
        from inspect_ai.log import read_eval_log
    except ImportError:
        raise MissingDependencyError("inspect-ai", "inspect", f"reading {path}") from None
    left_out = {"messages", "events", "store", "attachments", "output", "timelines", "events_data"}
    try:
        log = read_eval_log(str(path), exclude_fields=left_out)
    except Exception as error:  # a reader of others: whatever it raises, the file is no log that it reads
        raise DataError(f"{path}: Inspect cannot read it: {error}") from None
    samples: Any = {"__all__": set(_Sample.model_fields)}
    return log.model_dump(include={"version": True, "status": True, "eval": True, "samples": samples})


def _names(log: _Log) -> list[str]:
    """Every score of the log; those that hold several values by `score.key`."""
    return list(dict.fromkeys(name for sample in log.samples or () for name, _ in _values(sample)))


def _values(sample: _Sample) -> Iterator[tuple[str, Any]]:
    for name, score in (sample.scores or {}).items():
        if isinstance(score.value, Mapping):
            yield from ((f"{name}.{key}", value) for key, value in score.value.items())
        else:
            yield name, score.value


def _sample(sample: _Sample, log: _Log, chosen: str, cluster: str, path: Path) -> ForeignSample:
    where = f"{path}: sample {sample.id!r}"
    values = dict(_values(sample))
    score = None if _fault(sample) else _as_number(values.get(chosen), f"{where}: score {chosen!r}")
    parts = {
        name: part for name, value in values.items() if name != chosen and (part := _maybe(value)) is not None
    }
    judged = (
        (sample.scores or {}).get(chosen) or (sample.scores or {}).get(chosen.rpartition(".")[0]) or _Score()
    )
    ours = OURS in (log.eval.metadata or {})
    if ours and isinstance(kept := (judged.metadata or {}).get("parts"), dict):
        parts |= kept
    if cluster and cluster not in sample.metadata:
        raise DataError(f"{where}: no {cluster!r} in its metadata, which says what its cluster is")
    usage = sample.model_usage.get(log.eval.model)
    return ForeignSample(
        task=str(sample.id),
        content=[_asked(sample.input), sample.target, sample.choices],
        epoch=sample.epoch,
        score=score,
        reason=_fault(sample) or judged.explanation or judged.reason or "no score",
        parts=parts,
        cluster=text_of(sample.metadata[cluster]) if cluster else "",
        slices=sample.metadata.get("slices", {}) if ours else {},
        digest=sample.metadata.get("digest", "") if ours else "",
        prompt_tokens=_read_tokens(usage) if usage else None,
        completion_tokens=usage.output_tokens if usage else None,
        latency_s=sample.total_time,
    )


def _asked(value: Any) -> Any:
    """What a sample asks, the same in every run: messages also have ids of their own, which are not."""
    if isinstance(value, str):
        return value
    return [[message.get("role"), _without_none(message.get("content"))] for message in value]


def _without_none(value: Any) -> Any:
    """Parts of a message alike, whether their empty fields are written or left out."""
    if isinstance(value, list):
        return [_without_none(one) for one in value]
    if isinstance(value, dict):
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    return value


def _fault(sample: _Sample) -> str:
    """Why a sample has no verdict, whatever its scores."""
    if sample.invalidation is not None:
        return "invalidated"
    return str(sample.error.get("message") or "error") if sample.error else ""


def _read_tokens(usage: _Usage) -> int:
    return usage.input_tokens + (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)


def _maybe(value: Any) -> float | None:
    """A score's number; None where it has none."""
    if not isinstance(value, str):
        return number(value)
    grade = GRADES.get(value, GRADES.get(value.lower()) if len(value) > 1 else None)
    return number(float(value)) if grade is None and re.fullmatch(r"-?\d+(\.\d+)?", value) else grade


def _as_number(value: Any, where: str) -> float | None:
    """
    Raises:
        DataError: the value has no number that everybody would give it.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    found = _maybe(value)
    if found is None:
        raise DataError(f"{where} is {value!r}, which is no number, no grade (C, P, I, N) and no yes or no")
    return found


def _cluster_key(log: _Log, path: Path) -> str:
    """The metadata by which the log's own `stderr(cluster=…)` groups samples; nothing where it has none."""
    keys = dict.fromkeys(_found(log.eval.scorers, "cluster")) | dict.fromkeys(
        _found(log.eval.metrics, "cluster")
    )
    if len(keys) > 1:
        raise ConfigError(f"{path}: several clusters: choose one with --cluster: {', '.join(keys)}")
    return next(iter(keys), "")


def _found(value: Any, key: str) -> Iterator[str]:
    """Every text under `key`, at any depth."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == key and isinstance(inner, str):
                yield inner
            yield from _found(inner, key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _found(inner, key)


def _reduced(log: _Log, path: Path) -> tuple[str, ...]:
    """The metrics that the log's ways of reducing epochs stand for, besides the mean over them."""
    if (log.eval.config.epochs or 1) == 1:
        return ()
    metrics = []
    for name in log.eval.config.epochs_reducer or ["mean"]:
        found = re.fullmatch(r"pass_at_(\d+)", name)
        if not found and name != "mean":
            raise ConfigError(
                f"{path}: its epochs are reduced by {name!r}; a task's score here is their mean, and pass@k: "
                "evaluate with epochs_reducer mean or pass_at_K"
            )
        metrics += [f"pass@{found[1]}"] if found else []
    return tuple(metrics)
