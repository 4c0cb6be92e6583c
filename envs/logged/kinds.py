"""The kinds of environments over traces: classify, extract, rewrite, cite, outcome. An `env.toml` is enough:

id = "acme/Intent-v0"
kind = "classify"
traces = "../../traces"               # what `vertigym traces import` wrote
label = ["feedback.edit", "label"]    # where the truth stands; the first that is there
none = "none of these"                # what to answer where no label fits
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import dumps, read_json
from vertigym.core.types import Split, Task
from vertigym.envs.env import SingleTurnEnv
from vertigym.envs.folders import EnvFolder
from vertigym.envs.logged.documents import read_documents
from vertigym.envs.logged.source import (
    Paths,
    TracesConfig,
    at,
    make_tasks,
    read_split,
    task_of,
)
from vertigym.envs.tasks import Tasks
from vertigym.rewards import citations
from vertigym.rewards.answers import form
from vertigym.rewards.calling import RewardFunction
from vertigym.rewards.chance import ChanceCorrection
from vertigym.rewards.fields import fields
from vertigym.rewards.labels import label as right_label
from vertigym.rewards.outcome import accepted, accepted_rewards
from vertigym.rewards.replies import json_in
from vertigym.rewards.retrieval import Library, found, retrieval
from vertigym.rewards.rubric import Part, Rubric
from vertigym.rewards.structure import schema_validator
from vertigym.traces.preferences import verdict
from vertigym.traces.records import Trace


class ClassifyConfig(TracesConfig):
    """`kind = "classify"`. `costs.TRUE.GIVEN` says what a confusion costs, 1 where it is not named."""

    kind: Literal["classify"]
    label: Paths = Field("label", description="where the right label stands; several: the first that is there")
    labels: tuple[str, ...] = Field((), description="the allowed ones; left out: all that train has")
    none: str = Field("", description="the label of what fits none; without it such a trace is an error")
    where: str = Field("whole", description="where the label stands in the reply")
    costs: dict[str, dict[str, float]] = Field({}, description="TRUE.GIVEN")


def load_classify(folder: EnvFolder, **changes: Any) -> SingleTurnEnv:
    """The label of a text.

    Raises:
        ConfigError: env.toml is wrong. DataError: a file is missing, or a label is not among `labels`.
    """
    config = folder.config(ClassifyConfig, **changes)
    labels = list(config.labels or _labels_in_train(folder, config))
    if config.none and config.none not in labels:
        labels.append(config.none)
    if len(labels) < 2:
        raise DataError(f"{folder}: {len(labels)} label at {config.label!r} in train; classifying needs two")

    def task(trace: Trace, split: Split) -> Task | str:
        answer = _text(at(trace, config.label))
        if not answer:
            return f"nothing at {_named(config.label)}"
        if answer not in labels and not config.none:
            hint = 'add it to labels, or set none = "none of these"'
            raise DataError(
                f"{folder}: trace {trace.id} has the label {answer!r}, which is none of {labels}: {hint}"
            )
        return task_of(trace, split, answer if answer in labels else config.none, options=labels)

    instruction = "Answer with one of: " + ", ".join(labels) + "."
    tasks, notes = make_tasks(folder, config, task, instruction=instruction)
    correction = ChanceCorrection(tasks, lambda task: {task.answer: 1.0})
    reward = right_label(labels, costs=config.costs, correction=correction, where=config.where)
    return _env(tasks, reward, notes, answer_form=form(config.where), least=-1.0)


class ExtractConfig(TracesConfig):
    """`kind = "extract"`."""

    kind: Literal["extract"]
    json_schema: str = Field("schema.json", alias="schema", description="a JSON schema, beside env.toml")
    answer: Paths = Field(("feedback.edit", "label", "completion"), description="where the right JSON stands")
    weights: dict[str, float] = Field({}, description="by field (dotted), 1 where it is not named")
    tolerance: float = Field(1e-6, ge=0, description="of numbers that are not whole, absolute")


def load_extract(folder: EnvFolder, **changes: Any) -> SingleTurnEnv:
    """The fields of a text, as JSON.

    Raises:
        ConfigError: env.toml or the schema is wrong. DataError: a file is missing.
    """
    config = folder.config(ExtractConfig, **changes)
    schema = read_json(folder.file(config.json_schema))
    if not isinstance(schema, dict):
        raise ConfigError(f"{folder}/{config.json_schema}: a JSON schema is an object")
    fits = schema_validator(schema)

    def task(trace: Trace, split: Split) -> Task | str:
        answer = at(trace, config.answer)
        if answer is None:
            return f"nothing at {_named(config.answer)}"
        try:
            record = json_in(answer) if isinstance(answer, str) else answer
        except ValueError:
            return "their answer is not JSON"
        if not isinstance(record, dict) or fits(record):
            return "their answer does not fit the schema"
        return task_of(trace, split, record)

    keys = ", ".join(schema.get("properties") or {})
    tasks, notes = make_tasks(folder, config, task, instruction=f"Answer with one JSON object: {keys}.")
    return _env(tasks, fields(schema, weights=config.weights, tolerance=config.tolerance), notes)


class RewriteConfig(TracesConfig):
    """`kind = "rewrite"`."""

    kind: Literal["rewrite"]
    documents: str = Field("documents.jsonl", description='rows {"id", "text"}: what retrieval looks through')
    relevant: Paths = Field("documents", description="where the ids of the right documents stand")
    k: int = Field(5, ge=1, description="places that count as found")
    mrr: float = Field(0.5, ge=0, le=1, description="weight of the first right place against recall@k")
    max_words: int = Field(16, ge=1, description="a longer query earns nothing")
    everything: bool = Field(
        False, description="also queries that need no rewriting; the score is what is found"
    )


class RewriteEnv(SingleTurnEnv):
    """Rewrites of queries, paid by what they find."""

    def __init__(self, tasks: Tasks, library: Library, config: RewriteConfig) -> None:
        reward = retrieval(
            library, k=config.k, mrr=config.mrr, max_words=config.max_words, gain=not config.everything
        )
        super().__init__(tasks, Rubric(Part(reward, name="retrieval")))
        self._library, self._most = library, config.max_words

    def reference(self, task: Task) -> Sequence[str] | None:
        """The documents' own rarest words: what a rewriter would ask that had read them."""
        wanted = [name for name in task.info["relevant"] if name in self._library]
        tried = [
            " ".join(self._library.telling(name, count) for name in wanted)
            for count in range(self._most // len(wanted), 0, -1)
        ]
        return [max(tried, key=lambda query: self.rubric.score(task=task, completion=query).value or 0.0)]


def load_rewrite(folder: EnvFolder, **changes: Any) -> RewriteEnv:
    """A query made to find more.

    Raises:
        ConfigError: env.toml is wrong. DataError: a file is missing. MissingDependencyError: no `bm25s`.
    """
    config = folder.config(RewriteConfig, **changes)
    library = Library(read_documents(folder.file(config.documents)))

    def task(trace: Trace, split: Split) -> Task | str:
        wanted = [name for name in _ids(at(trace, config.relevant)) if name in library]
        if not wanted:
            return f"none of their documents (at {_named(config.relevant)}) is among {config.documents}"
        recall, rank = found(library, trace.question, wanted, config.k)
        if not config.everything and recall == 1 and (rank == 1 or config.mrr == 0):
            return "the query as it is finds everything (everything = true keeps them)"
        return task_of(trace, split, None, relevant=wanted, query=trace.question)

    instruction = "Rewrite the question as a search query."
    tasks, notes = make_tasks(
        folder, config, task, instruction=instruction, key=lambda task: dumps(task.info["relevant"])
    )
    env = RewriteEnv(tasks, library, config)
    env.notes = notes
    return env


class CiteConfig(TracesConfig):
    """`kind = "cite"`. `most` bounds the share of questions that the passages do not answer."""

    kind: Literal["cite"]
    answer: Paths = Field("label", description='the answer as the passages have it; "": they do not say')
    passages: Literal["add", "there"] = Field(
        "add", description="add them to the question, or they stand there"
    )
    refusal: str = Field(citations.REFUSAL, description="what is right where the passages do not say")
    max_words: int = Field(40, ge=1, description="of an answer")
    overlap: float = Field(0.7, gt=0, le=1, description="share of a claim's words that the passage must hold")
    most: float = Field(0.25, gt=0, le=1, description="share of questions that the passages do not answer")


def load_cite(folder: EnvFolder, **changes: Any) -> SingleTurnEnv:
    """An answer whose claims cite the passages that hold them.

    Raises:
        ConfigError: env.toml is wrong. DataError: a file is missing.
    """
    config = folder.config(CiteConfig, **changes)

    def task(trace: Trace, split: Split) -> Task | str:
        answer = at(trace, config.answer)
        if answer is None:
            return f"nothing at {_named(config.answer)}"
        if not trace.documents:
            return "they have no documents"
        passages = {document.id: document.text for document in trace.documents}
        answers = [text for one in (answer if isinstance(answer, list) else [answer]) if (text := _text(one))]
        wanted = citations.reference(passages, answers, config.refusal)
        if wanted is None:
            return "no passage holds the answer"
        shown = trace if config.passages == "there" else _with_passages(trace)
        return task_of(shown, split, wanted, passages=passages, answers=answers)

    instruction = (
        "Answer from the passages, and cite after each sentence the passage that says it, like [id]. "
        f"If they do not say, answer: {config.refusal}"
    )
    tasks, notes = make_tasks(folder, config, task, instruction=instruction)
    correction = ChanceCorrection(tasks, lambda task: {} if task.info["answers"] else {config.refusal: 1.0})
    reward = citations.cited_answer(
        refusal=config.refusal, max_words=config.max_words, share=config.overlap, correction=correction
    )
    return _env(tasks, reward, notes, least=-1.0)


class OutcomeConfig(TracesConfig):
    """`kind = "outcome"`: thumbs, edits, resolved and reopened, as `traces.preferences.verdict` reads them."""

    kind: Literal["outcome"]
    match: Literal["same", "near"] = Field(
        "same", description="the reply has to be the accepted one, or nearly"
    )


def load_outcome(folder: EnvFolder, **changes: Any) -> SingleTurnEnv:
    """The reply that people accepted.

    Raises:
        ConfigError: env.toml is wrong. DataError: a file is missing.
    """
    config = folder.config(OutcomeConfig, **changes)
    replies: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for _, trace in read_split(folder, config):
        said, seen = verdict(trace), replies[_input(trace)]
        if said is not None:
            seen[trace.completion.strip()].append(said)
        if trace.feedback is not None and trace.feedback.edit:
            seen[trace.feedback.edit.strip()].append(True)

    def task(trace: Trace, split: Split) -> Task | str:
        shares = {reply: sum(said) / len(said) for reply, said in replies[_input(trace)].items() if reply}
        good = {reply: share for reply, share in shares.items() if share > 0}
        if not shares:
            return "nobody said whether they were accepted"
        if not good:
            return "no reply to their input was accepted"
        bad = [reply for reply, share in shares.items() if share == 0]
        return task_of(trace, split, max(good, key=lambda reply: good[reply]), accepted=good, rejected=bad)

    tasks, notes = make_tasks(folder, config, task)
    correction = ChanceCorrection(tasks, lambda task: accepted_rewards(task.info["accepted"]))
    return _env(tasks, accepted(match=config.match, correction=correction), notes, least=-1.0)


def _env(
    tasks: Tasks,
    reward: RewardFunction,
    notes: tuple[str, ...],
    *,
    answer_form: str = "{}",
    least: float = 0.0,
) -> SingleTurnEnv:
    env = SingleTurnEnv(tasks, Rubric(Part(reward, name="reward")), answer_form=answer_form)
    env.ranges = dict.fromkeys(("score", "reward"), (least, 1.0))
    env.notes = notes
    return env


def _labels_in_train(folder: EnvFolder, config: ClassifyConfig) -> list[str]:
    listed = {_text(at(trace, config.label)) for split, trace in read_split(folder, config) if split == "train"}
    return sorted(listed - {""})


def _with_passages(trace: Trace) -> Trace:
    """The passages below the last message, each after its id."""
    listed = "\n".join(f"[{document.id}] {document.text}" for document in trace.documents)
    last = {**trace.messages[-1], "content": f"{trace.messages[-1]['content']}\n\n{listed}"}
    return trace.model_copy(update={"messages": (*trace.messages[:-1], last)})


def _ids(value: Any) -> list[str]:
    listed = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return list(dict.fromkeys(str(getattr(one, "id", one)) for one in listed))


def _input(trace: Trace) -> str:
    return json.dumps([dict(message) for message in trace.messages if message["role"] != "system"])


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _named(paths: Paths) -> str:
    return paths if isinstance(paths, str) else " or ".join(paths)
