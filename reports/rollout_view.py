"""Rollouts for reading: turns, tokens with their log-probs, and what they say of calibration and length."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from math import exp
from pathlib import Path
from typing import Any

from vertigym.core.types import Message, Segment
from vertigym.evals.sample_records import SampleRecord, sampled_turns
from vertigym.reports.before_after import answer_fields, grouped
from vertigym.reports.mistakes import mistakes

BUDGET = 10_000_000  # characters of rollouts on one page
TOKENS = 600  # tokens shown one by one in a turn; the rest stays plain text
STREAM = 4000  # tokens of an episode shown one by one with their loss mask
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RolloutView:
    """One rollout. `outcome` is won or lost against a baseline; `turns` hold (token id, log-prob);
    `segments` are all tokens of the episode, in training rollouts."""

    task: str
    env: str
    score: float | None
    parts: Mapping[str, float]
    reason: str
    messages: Sequence[Message]
    turns: Sequence[Sequence[tuple[int, float]]]
    tokens: int
    slices: Sequence[str] = ()
    outcome: str = ""
    step: int | None = None
    advantage: float | None = None
    sample: int = 0
    segments: Sequence[Segment] = ()
    mistakes: Sequence[str] = ()

    @property
    def confidence(self) -> float | None:
        """Geometric mean of the probabilities of the tokens written."""
        logprobs = [logprob for turn in self.turns for _, logprob in turn]
        return exp(sum(logprobs) / len(logprobs)) if logprobs else None


class Rollouts:
    """Rollouts and the tokenizer that cuts them into tokens, if there is one."""

    def __init__(self, rollouts: Sequence[RolloutView], tokenizer: Any | None) -> None:
        self.all = list(rollouts)
        self._tokenizer = tokenizer

    def shown(self, budget: int = BUDGET, answers: Mapping[str, str] | None = None) -> list[Json]:
        """As many as fit the page: not scored, lost and won ones first, then wrong ones, then the others. Those
        that say the same in a task are one row. `answers`: the right ones by task, set beside wrong ones."""
        rows, spent = [], 0
        for rollout in sorted(self.all, key=_interest):
            row = self._row(rollout)
            spent += len(json.dumps(row))
            if spent > budget:
                break
            right = (answers or {}).get(rollout.task)
            if right is not None and rollout.score is not None and rollout.score < 1 and rollout.messages:
                row["fields"] = answer_fields(rollout.messages[-1]["content"], right)
            rows.append(row)
        return grouped(rows)

    def _row(self, rollout: RolloutView) -> Json:
        return {
            "task": rollout.task,
            "env": rollout.env,
            "sample": rollout.sample,
            "step": rollout.step,
            "score": rollout.score,
            "parts": dict(rollout.parts),
            "reason": rollout.reason,
            "slices": list(rollout.slices),
            "mistakes": list(rollout.mistakes),
            "outcome": rollout.outcome,
            "advantage": rollout.advantage,
            "tokens": rollout.tokens,
            "messages": list(self._messages(rollout)),
            **({"stream": self._stream(rollout.segments)} if self._tokenizer and rollout.segments else {}),
        }

    def _stream(self, segments: Sequence[Segment]) -> list[list[Json]]:
        """Each segment as the model saw it, run by run: what the policy wrote, which carries a loss, and what
        it was given, which does not. Pieces are text and log-prob."""
        shown, left = [], STREAM
        for segment in segments:
            runs: list[Json] = []
            rows = zip(segment.token_ids, segment.logprobs, segment.loss_mask, strict=True)
            for mask, run in groupby(islice(rows, left), key=lambda row: bool(row[2])):
                tokens = [(token, logprob) for token, logprob, _ in run]
                left -= len(tokens)
                runs.append({"trained": mask, "tokens": list(self._pieces(tokens))})
            shown.append(runs)
        return shown

    def _messages(self, rollout: RolloutView) -> Iterator[Json]:
        """Messages, those the policy wrote with their tokens."""
        written = [i for i, message in enumerate(rollout.messages) if message["role"] == "assistant"]
        turn_of = dict(zip(written[len(written) - len(rollout.turns) :], rollout.turns, strict=True))
        for i, message in enumerate(rollout.messages):
            row: Json = {"role": message["role"], "text": message["content"]}
            if message.get("tool_calls"):
                row["tools"] = message["tool_calls"]
            if self._tokenizer and i in turn_of:
                row["tokens"] = list(self._pieces(turn_of[i][:TOKENS]))
                row["cut"] = len(turn_of[i]) > TOKENS
            yield row

    def _pieces(self, turn: Sequence[tuple[int, float]]) -> Iterator[tuple[str, float]]:
        """Text and log-prob of each token; tokens that only together make a character are joined."""
        assert self._tokenizer
        ids: list[int] = []
        logprob = 0.0
        for token, own in turn:
            ids.append(token)
            logprob += own
            text = self._tokenizer.decode(ids, skip_special_tokens=False)
            if "\ufffd" not in text or len(ids) > 4:
                yield text, round(logprob, 3)
                ids, logprob = [], 0.0
        if ids:
            yield self._tokenizer.decode(ids, skip_special_tokens=False), round(logprob, 3)


def from_samples(
    records: Iterable[SampleRecord],
    slices: Mapping[tuple[str, str], Mapping[str, Sequence[str]]],
    outcomes: Mapping[tuple[str, str], str],
    model: Path,
) -> Rollouts:
    """Rollouts of an eval's samples; `outcomes` says which tasks were won and lost."""
    rollouts = [
        RolloutView(
            task=record.task,
            env=record.env,
            score=record.score,
            parts=record.parts,
            reason=record.reason,
            messages=record.messages,
            turns=[
                list(zip(ids, logprobs, strict=True))
                for ids, logprobs in zip(record.tokens, record.logprobs, strict=True)
            ],
            tokens=record.completion_tokens,
            slices=_labels(slices.get((record.env, record.task), {})),
            outcome=outcomes.get((record.env, record.task), ""),
            sample=record.sample,
            mistakes=mistakes(record.score, record.evidence),
        )
        for record in records
    ]
    return Rollouts(rollouts, tokenizer_of(model))


def from_run(
    rows: Iterable[Json], step: int, rules: Mapping[str, Sequence[str]] | None = None
) -> list[RolloutView]:
    """Rollouts that training saved at `step`: trajectories with their advantages. `rules`: of each task."""
    return [
        RolloutView(
            task=row["task_id"],
            env="",
            score=row["score"]["value"],
            parts=row["score"]["parts"],
            reason=str(row["score"]["evidence"].get("reason", "")) if row["score"]["value"] is None else "",
            messages=row["messages"],
            turns=sampled_turns(segments := [Segment(**segment) for segment in row["segments"]]),
            segments=segments,
            tokens=row["completion_tokens"],
            slices=[f"rule={rule}" for rule in (rules or {}).get(row["task_id"], ())]
            or [row["cluster"]] * bool(row["cluster"]),
            mistakes=mistakes(row["score"]["value"], row["score"]["evidence"]),
            step=step,
            advantage=row.get("advantage"),
        )
        for row in rows
    ]


def tokenizer_of(folder: Path) -> Any | None:
    """The tokenizer of a model folder, where there is one to read."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(file))


def calibration(rollouts: Sequence[RolloutView], bins: int = 10) -> list[Json]:
    """Mean confidence against mean score in bins of equal width; empty bins are left out."""
    pairs = [(c, r.score) for r in rollouts if r.score is not None and (c := r.confidence) is not None]
    found = []
    for i in range(bins):
        inside = [(c, s) for c, s in pairs if min(int(c * bins), bins - 1) == i]
        if inside:
            count = len(inside)
            sure, right = (sum(column) / count for column in zip(*inside, strict=True))
            found.append({"confidence": sure, "score": right, "count": count})
    return found


def lengths(rollouts: Sequence[RolloutView], bins: int = 24) -> Json | None:
    """Histograms of the tokens written, by outcome."""
    if not rollouts:
        return None
    most = max(rollout.tokens for rollout in rollouts)
    width = max(1, -(-(most + 1) // bins))
    counts = {name: [0] * (most // width + 1) for name in ("right", "wrong", "not scored")}
    for rollout in rollouts:
        counts[_kind(rollout)][rollout.tokens // width] += 1
    return {"width": width, "counts": counts}


def _kind(rollout: RolloutView) -> str:
    return "not scored" if rollout.score is None else "right" if rollout.score >= 1 else "wrong"


def _interest(rollout: RolloutView) -> int:
    """Sort key: what a reader wants to see first."""
    if rollout.score is None:
        return 0
    return {"lost": 1, "won": 2}.get(rollout.outcome, 3 if rollout.score < 1 else 4)


def _labels(slices: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{name}={value}" for name, values in slices.items() for value in values]
