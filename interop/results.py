"""Results of any eval as reports: ours, Inspect's logs, lm-eval's sample files, verifiers' traces.

A reader of another program's results gives `ForeignEval`s: samples with an id, the content they were asked,
and a score. `foreign_report` lays them out as the rows of a `Report`, so that paired intervals and gates are
the same code whoever ran the eval. Two results are of one suite when ids, contents and numbers of samples are
the same.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from vertigym.core.errors import ConfigError, DataError
from vertigym.evals.mean_bounds import Range
from vertigym.evals.metrics import MACRO_F1, PASS, Row, less_is_better
from vertigym.evals.report import Report, make_report
from vertigym.evals.suite import EnvPart, Suite


@dataclass(frozen=True, slots=True)
class Reading:
    """What a person chose where a file can be read in several ways: `score` names what is compared, `cluster`
    the metadata whose value says which samples are one piece of evidence. Empty: what the file says itself."""

    score: str = ""
    cluster: str = ""

    def chosen(self, names: Sequence[str], source: Path) -> str:
        """The score to compare.

        Raises:
            ConfigError: there are several and none was chosen, or the chosen one is not there.
        """
        if self.score in names or (not self.score and len(names) == 1):
            return self.score or names[0]
        if not names:
            raise DataError(f"{source}: no sample has a score")
        what = f"no score {self.score!r}" if self.score else "several scores"
        raise ConfigError(f"{source}: {what}: choose one with --score: {', '.join(names)}")


@dataclass(frozen=True, slots=True)
class ForeignSample:
    """One sample as another program scored it. `content` is what was asked and expected; a `digest` of ours
    stands for it where there is one. `score` None is *not scored*. Tokens of None: nobody counted."""

    task: str
    content: Any
    epoch: int
    score: float | None
    reason: str = ""
    parts: Mapping[str, float] = field(default_factory=dict)
    cluster: str = ""
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    digest: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class ForeignEval:
    """One task (in the sense of Inspect and lm-eval: a benchmark) on one model. `weight` is its part of the
    whole where several are read together."""

    name: str
    model: str
    samples: Sequence[ForeignSample]
    source: Path
    started: str = ""
    weight: float = 1.0
    metrics: tuple[str, ...] = ()
    ranges: Mapping[str, Range] = field(default_factory=dict)


def foreign_report(evals: Sequence[ForeignEval]) -> Report:
    """The report of one model on one benchmark or several, a row a sample id.

    Raises:
        DataError: nothing was read, or a sample stands twice. ConfigError: two files of one benchmark, or of
            several models.
    """
    for name in ("name", "model"):
        values = [getattr(one, name) for one in evals]
        if name == "name" and len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            files = [str(one.source) for one in evals if one.name == twice]
            raise ConfigError(f"{' and '.join(files)} both hold {twice!r}: name one file")
        if name == "model" and len(set(values)) != 1:
            raise ConfigError(
                f"{evals[0].source.parent}: results of several models ({', '.join(values)}): name one file"
            )
    whole = sum(one.weight for one in evals)
    rows = [row for one in evals for row in _rows(one, one.weight / whole)]
    suite = Suite(
        name=re.sub(r"[^\w.-]+", "-", "+".join(one.name for one in evals)).strip("-.") or "results",
        env=tuple(EnvPart(id=one.name) for one in evals),
        metrics=_metrics(evals, rows),
        ranges={name: limits for one in evals for name, limits in one.ranges.items()},
    )
    listed = [[row.env, row.task, row.digest, len(row.scores), row.weight] for row in rows]
    started = min(one.started for one in evals)
    return make_report(suite, _sha(listed), rows, model=evals[0].model, seed=0, started=started)


def _rows(one: ForeignEval, share: float) -> list[Row]:
    """The samples by id, in the order of ids, epochs in order; every id weighs the same."""
    by_task: dict[str, list[ForeignSample]] = {}
    for sample in sorted(one.samples, key=lambda sample: sample.epoch):
        by_task.setdefault(sample.task, []).append(sample)
    return [_row(one, samples, share / len(by_task)) for _, samples in sorted(by_task.items())]


def _row(one: ForeignEval, samples: Sequence[ForeignSample], weight: float) -> Row:
    first = samples[0]
    digests = {sample.digest or _sha(sample.content) for sample in samples}
    if len({sample.epoch for sample in samples}) < len(samples):
        raise DataError(f"{one.source}: sample {first.task!r} stands twice in epoch {first.epoch}")
    if len(digests) > 1 or len({sample.cluster for sample in samples}) > 1:
        raise DataError(f"{one.source}: the epochs of sample {first.task!r} differ in what was asked")
    scored = [sample for sample in samples if sample.score is not None]
    return Row(
        env=one.name,
        task=first.task,
        digest=digests.pop(),
        cluster=first.cluster,
        weight=weight,
        slices={name: tuple(values) for name, values in first.slices.items()},
        scores=tuple(sample.score for sample in samples),
        parts=_mean_parts(scored),
        prompt_tokens=tuple(s.prompt_tokens for s in samples if s.prompt_tokens is not None),
        completion_tokens=tuple(s.completion_tokens for s in samples if s.completion_tokens is not None),
        latency_s=tuple(s.latency_s for s in samples if s.latency_s is not None),
        reasons=tuple(sample.reason or "not scored" for sample in samples if sample.score is None),
    )


def _mean_parts(scored: Sequence[ForeignSample]) -> dict[str, float]:
    names = dict.fromkeys(name for sample in scored for name in sample.parts)
    found = {name: [sample.parts[name] for sample in scored if name in sample.parts] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}


def _metrics(evals: Sequence[ForeignEval], rows: Sequence[Row]) -> tuple[str, ...]:
    """The score, what the files ask for, and other scores, but for those named like a metric of ours."""
    parts = sorted({name for row in rows for name in row.parts})
    own = [name for name in parts if name not in ("score", MACRO_F1) and not PASS.fullmatch(name)]
    asked = [metric for one in evals for metric in one.metrics]
    return tuple(dict.fromkeys(("score", *asked, *(name for name in own if not less_is_better(name)))))


def number(value: Any) -> float | None:
    """A finite number of JSON's, true and false included; None for anything else."""
    if not isinstance(value, int | float) or not abs(value) < float("inf"):
        return None
    return float(value)


def text_of(value: Any) -> str:
    """A value of metadata as the name of a cluster."""
    return (
        value
        if isinstance(value, str)
        else ""
        if value is None
        else json.dumps(value, sort_keys=True, default=str)
    )


def _sha(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
