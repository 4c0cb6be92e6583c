"""Samples on disk: one JSON line each, flushed as it finishes, so that a killed eval loses nothing it has.

The first line of `samples.jsonl` says what the file belongs to (suite hash, model, seed); a resumed run that
does not match it is refused. A line cut short by a crash is dropped. A later line for the same sample replaces
an earlier one: samples that could not be scored are tried again on resume.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import read_jsonl
from vertigym.core.types import Message, Segment, Trajectory

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Header:
    """What the samples of a file belong to."""

    suite: str
    suite_hash: str
    model: str
    seed: int
    started: str


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One sample of one task, whole. `score` None is *not scored*, and `reason` says why. `tokens` and
    `logprobs` hold a list a turn of what the policy wrote; both are empty for policies without tokens."""

    env: str
    task: str
    sample: int
    score: float | None
    parts: Mapping[str, float]
    evidence: Mapping[str, Any]
    reason: str
    messages: Sequence[Message]
    stop_reason: str
    turns: int
    prompt_tokens: int
    completion_tokens: int
    latency_s: float
    seed: int
    tokens: Sequence[Sequence[int]] = ()
    logprobs: Sequence[Sequence[float]] = ()

    @property
    def key(self) -> Key:
        """Environment, task, sample."""
        return self.env, self.task, self.sample

    @property
    def actions(self) -> list[str]:
        """What the policy wrote, turn by turn: the last `turns` assistant messages."""
        written = [message["content"] for message in self.messages if message["role"] == "assistant"]
        return written[len(written) - self.turns :]


def record_of(env: str, sample: int, trajectory: Trajectory) -> SampleRecord:
    """A trajectory as a record."""
    score = trajectory.score
    reason = _one_line(score.evidence.get("reason") or "not scored") if score.value is None else ""
    turns = sampled_turns(trajectory.segments)
    return SampleRecord(
        env=env,
        task=trajectory.task_id,
        sample=sample,
        score=score.value,
        parts=dict(score.parts),
        evidence=dict(score.evidence),
        reason=reason,
        messages=trajectory.messages,
        stop_reason=trajectory.stop_reason.value,
        turns=trajectory.turns,
        prompt_tokens=trajectory.prompt_tokens,
        completion_tokens=trajectory.completion_tokens,
        latency_s=trajectory.latency_s,
        seed=trajectory.seed,
        tokens=[[token for token, _ in turn] for turn in turns],
        logprobs=[[round(logprob, 4) for _, logprob in turn] for turn in turns],
    )


def sampled_turns(segments: Iterable[Segment]) -> list[list[tuple[int, float]]]:
    """What the policy wrote, turn by turn, as (token id, log-prob)."""
    turns: list[list[tuple[int, float]]] = []
    for segment in segments:
        before = 0
        for token, logprob, mask in zip(segment.token_ids, segment.logprobs, segment.loss_mask, strict=True):
            if mask and not before:
                turns.append([])
            if mask:
                turns[-1].append((token, logprob))
            before = mask
    return turns


class SampleFile:
    """Append-only file of samples, as a context manager.

    Raises:
        ConfigError: `resume` finds samples of another suite, model or seed. DataError: the file is malformed.
    """

    def __init__(self, path: Path, header: Header, *, resume: bool) -> None:
        self.header = header
        self.done: dict[Key, SampleRecord] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if resume and path.exists() and _drop_torn_tail(path):
            found, records = read_samples(path)
            _check_same(path, found, header)
            self.header = found
            self.done = {record.key: record for record in records}
            self._file = path.open("a", encoding="utf-8", newline="\n")
        else:
            self._file = path.open("w", encoding="utf-8", newline="\n")
            self._write(asdict(header))

    def append(self, record: SampleRecord) -> None:
        """Write one sample; it survives the process from here on."""
        self.done[record.key] = record
        self._write(_as_dict(record))

    def _write(self, row: Mapping[str, Any]) -> None:
        self._file.write(_line(row))
        self._file.flush()

    def __enter__(self) -> "SampleFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def read_samples(path: Path) -> tuple[Header, list[SampleRecord]]:
    """A sample file's header and records, the last of each key, in order of first appearance.

    Raises:
        DataError: missing, empty, or a line that is no sample (names the line).
    """
    first, *rows = read_jsonl(path, torn_tail=True) or [None]
    try:
        header = Header(**first)
    except TypeError:
        raise DataError(f"{path}:1: not the header of a sample file") from None
    records: dict[Key, SampleRecord] = {}
    for number, row in enumerate(rows, 2):
        try:
            record = SampleRecord(**row)
        except TypeError:
            raise DataError(f"{path}:{number}: not a sample") from None
        records[record.key] = record
    return header, list(records.values())


def _drop_torn_tail(path: Path) -> bool:
    """Cut off a last line without its newline; whether anything is left."""
    with path.open("rb+") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)
    return whole > 0


def _check_same(path: Path, found: Header, wanted: Header) -> None:
    for name in ("suite_hash", "model", "seed"):
        if getattr(found, name) != getattr(wanted, name):
            raise ConfigError(
                f"{path} holds samples for {name} {getattr(found, name)!r}, this run has "
                f"{getattr(wanted, name)!r}: choose another folder, or run without --resume to start over"
            )


_FIELDS = tuple(f.name for f in fields(SampleRecord))


def _as_dict(record: SampleRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _FIELDS}


def _one_line(reason: object) -> str:
    """A reason short and clean enough for a report: it may quote an endpoint."""
    text = " ".join(str(reason).encode("utf-8", "replace").decode().split())
    return text if len(text) <= 300 else text[:299] + "…"


def _line(row: Mapping[str, Any]) -> str:
    """One line of ASCII JSON: a policy may write lone surrogates, which UTF-8 cannot hold. Evidence is
    whatever an environment gave; what is not JSON in it becomes text."""
    try:
        return json.dumps(row, allow_nan=False, default=str) + "\n"
    except (ValueError, TypeError, RecursionError):
        return json.dumps({**row, "evidence": {"text": str(row.get("evidence"))}}, default=str) + "\n"
