"""Preferences out of logs: of two answers to one input, the one that people took.

Three kinds of evidence, the strongest first:

    edit      what a person made of an answer, before the answer
    verdict   an answer that was accepted, before one to the same input that was refused
    retry     of answers to one input that was asked again in a session, the last one, unless it was refused,
              before those it replaced

A preference that another one contradicts says nothing; both go. A row, which `algorithm = "dpo"` learns from:

    {"messages": [{"role": "user", "content": "Where is my order?"}], "chosen": "…", "rejected": "…",
     "evidence": "edit"}
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vertigym.core.errors import DataError
from vertigym.core.files import dumps, write_jsonl
from vertigym.core.manifest import sealed_as, sealed_folder
from vertigym.core.types import SPLITS
from vertigym.traces.records import IMPORTED, Trace, read_traces

PAIRS = "folder of preference pairs"  # what the manifest of such a folder says it is
Evidence = Literal["edit", "verdict", "retry"]
_RESOLVED = frozenset({"resolved", "accepted", "closed", "solved", "up"})
_REOPENED = frozenset({"reopened", "rejected", "escalated", "returned", "down"})


@dataclass(frozen=True, slots=True)
class Preference:
    """Of two answers to `messages`, `chosen` was better."""

    messages: tuple[Any, ...]
    chosen: str
    rejected: str
    evidence: Evidence

    def row(self) -> dict[str, Any]:
        """As a row of JSON."""
        return {
            "messages": list(self.messages),
            "chosen": self.chosen,
            "rejected": self.rejected,
            "evidence": self.evidence,
        }


def verdict(trace: Trace) -> bool | None:
    """Whether the completion was accepted as it was: an edit says no; then a matter that was resolved or came
    back, the outcome's word, and the thumb. None where nothing says."""
    said = trace.feedback
    if said is not None and said.edit is not None:
        return said.edit.strip() == trace.completion.strip()
    if said is not None and said.resolved is not None:
        return said.resolved
    word = (trace.outcome or "").strip().casefold()
    if word in _RESOLVED or word in _REOPENED:
        return word in _RESOLVED
    if said is not None and said.thumb is not None:
        return said.thumb == "up"
    return None


def accepted_reply(trace: Trace) -> str | None:
    """The edit, else the completion where it was accepted."""
    if trace.feedback is not None and trace.feedback.edit:
        return trace.feedback.edit
    return trace.completion if verdict(trace) else None


def preferences(traces: Iterable[Trace]) -> tuple[list[Preference], int]:
    """What the traces say, each pair of answers once with its strongest evidence, in the order of the traces;
    and how many preferences others contradict."""
    asked: dict[str, list[Trace]] = defaultdict(list)
    for trace in traces:
        asked[dumps(trace.messages)].append(trace)
    found: list[Preference] = []
    contradicted = 0
    for calls in asked.values():
        pairs: dict[tuple[str, str], Evidence] = {}
        for chosen, rejected, evidence in (*_edits(calls), *_verdicts(calls), *_retries(calls)):
            if chosen.strip() and rejected.strip() and chosen.strip() != rejected.strip():
                pairs.setdefault((chosen, rejected), evidence)
        agreed = {pair: evidence for pair, evidence in pairs.items() if pair[::-1] not in pairs}
        contradicted += len(pairs) - len(agreed)
        found += [Preference(calls[0].messages, *pair, evidence) for pair, evidence in agreed.items()]
    return found, contradicted


@dataclass(frozen=True, slots=True)
class PairCounts:
    """How many pairs a split has, by evidence, and how many others contradict."""

    evidence: Mapping[str, int]
    contradicted: int


def write_pairs(folder: Path, out: Path, *, force: bool = False) -> dict[str, PairCounts]:
    """The preferences of each split of an import, as `out/SPLIT.jsonl`; and how many there are.

    Raises:
        DataError: the folder is no import, or says nothing of which answers were better. ConfigError: `out`
            holds something else, or what was edited since.
    """
    if sealed_as(folder) != IMPORTED:
        raise DataError(f"{folder}: not an import of traces; vertigym traces import makes one out of logs")
    found = {
        split: preferences(read_traces(file))
        for split in SPLITS
        if (file := folder / f"{split}.jsonl").is_file()
    }
    if not any(pairs for pairs, _ in found.values()):
        raise DataError(
            f"{folder}: no call was edited, and no input has answers of which one is better: accepted and "
            "refused ones, or ones that were tried again in a session"
        )
    with sealed_folder(out, PAIRS, force=force) as partial:
        for split, (pairs, _) in found.items():
            write_jsonl(partial / f"{split}.jsonl", [pair.row() for pair in pairs])
    return {
        split: PairCounts(Counter(pair.evidence for pair in pairs), contradicted)
        for split, (pairs, contradicted) in found.items()
    }


_Pair = tuple[str, str, Evidence]


def _edits(calls: Sequence[Trace]) -> Iterator[_Pair]:
    for call in calls:
        if call.feedback and call.feedback.edit:
            yield call.feedback.edit, call.completion, "edit"


def _verdicts(calls: Sequence[Trace]) -> Iterator[_Pair]:
    """Each refused answer once, beside the accepted ones in turn."""
    said = [(call.completion, verdict(call)) for call in calls]
    accepted = list(dict.fromkeys(text for text, good in said if good))
    refused = list(dict.fromkeys(text for text, good in said if good is False))
    if accepted:
        for place, text in enumerate(refused):
            yield accepted[place % len(accepted)], text, "verdict"


def _retries(calls: Sequence[Trace]) -> Iterator[_Pair]:
    """Without times nobody knows which one was last."""
    sessions: dict[str, list[Trace]] = defaultdict(list)
    for call in calls:
        if call.session and call.time is not None:
            sessions[call.session].append(call)
    for tried in sessions.values():
        *replaced, last = sorted(tried, key=lambda call: call.time or 0.0)
        if verdict(last) is not False:
            yield from ((last.completion, call.completion, "retry") for call in replaced)
