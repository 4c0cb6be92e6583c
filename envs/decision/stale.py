"""Yesterday's rules: a plausible older version of a decision model, and logs that mostly follow it.

The older version has the same fields and the same kinds of outcome: thresholds in conditions are moved, and
the outcomes of neighbouring rows of a table change places. So its answers are right in form and wrong in part,
as a company's logs are after it has changed its rules.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from vertigym.core.errors import ConfigError
from vertigym.core.files import dumps
from vertigym.core.seeds import generator
from vertigym.core.types import Message, Split, Task
from vertigym.decisions.expressions import tokens
from vertigym.decisions.formats import ReadOptions, read_model
from vertigym.decisions.model import CaseError, DecisionError, DecisionModel
from vertigym.decisions.outputs import project
from vertigym.decisions.protocols import RuleModel
from vertigym.envs.decision.config import OLD_FILES
from vertigym.envs.decision.env import DecisionEnv
from vertigym.envs.decision.scripts import sandboxed

Document = dict[str, Any]
Edit = Callable[[], None]

_MOVES = (0.5, 0.75, 1.5, 2.0)
_THRESHOLD = re.compile(r"([<>]=?\s*|\[|\(|\.\.\s*)(-?\d[\d_]*(?:\.\d+)?)")
_SPAN = 0.15  # how far above the share asked for a change may take the model


def old_version(env: DecisionEnv, *, share: float = 0.6, seed: int = 0) -> RuleModel:
    """The older version that lies in the environment's folder; where there is none, one that is derived and
    answers about `share` of the training cases differently.

    Raises:
        DecisionError: there is none and none can be derived.
    """
    for name in OLD_FILES:
        if (old := env.folder.file(name)).is_file():
            return read_model(old, ReadOptions(scripts=sandboxed, decisions=env.config.decisions))
    current = env.config.model(env.folder, sandboxed)
    return derive_old(current, _tasks(env, "train"), env.config.outputs, share=share, seed=seed)


def company_logs(
    env: DecisionEnv, old: RuleModel, *, split: Split = "train", share_old: float = 0.75, seed: int = 0
) -> list[dict[str, list[Message]]]:
    """`stale_logs` over a split of an environment, with the system message that its episodes open with."""
    current = env.config.model(env.folder, sandboxed)
    return stale_logs(
        current,
        old,
        _tasks(env, split),
        env.config.outputs,
        share_old=share_old,
        seed=seed,
        system=env.system,
    )


def _tasks(env: DecisionEnv, split: Split) -> list[Task]:
    return [env.tasks.get(task_id) for task_id in env.tasks.ids(split)]


def derive_old(
    model: RuleModel, tasks: Sequence[Task], fields: Sequence[str], *, share: float = 0.6, seed: int = 0
) -> DecisionModel:
    """An older version of `model` that answers about `share` of the tasks differently.

    Changes are made one by one, in seeded order, until the share is reached. One that breaks the model, takes
    it too far, or gives an answer unlike any that the current model gives is taken back.

    Raises:
        DecisionError: no change of the model's rules changes any answer. ConfigError: `share` is not in (0, 1].
    """
    if not isinstance(model, DecisionModel):
        raise DecisionError(
            f"{model.source}: no older version is derived of DMN; put one beside it as {OLD_FILES[1]}"
        )
    if not 0 < share <= 1:
        raise ConfigError(f"share={share}: the share of answers to change is above 0 and at most 1")
    forms = {_form(task.answer) for task in tasks}
    old, reached = model, 0.0
    rng = generator(seed, "decision-old")
    for index in rng.permutation(_count_edits(model.text)):
        document = json.loads(old.text)
        edits = list(_edits(document))
        edits[int(index)]()
        try:
            candidate = DecisionModel(dumps(document, indent=2) + "\n", model.source, sandboxed)
        except DecisionError:
            continue
        answers = [_answer(candidate, task, fields) for task in tasks]
        changed = sum(a != t.answer for a, t in zip(answers, tasks, strict=True)) / max(len(tasks), 1)
        if changed <= reached or changed > share + _SPAN or not {_form(a) for a in answers} <= forms:
            continue
        old, reached = candidate, changed
        if reached >= share:
            break
    if old is model:
        raise DecisionError(f"{model.source}: no change of its rules changes an answer; give an old version")
    return old


def stale_logs(
    current: RuleModel,
    old: RuleModel,
    tasks: Sequence[Task],
    fields: Sequence[str],
    *,
    share_old: float = 0.75,
    seed: int = 0,
    system: str = "",
) -> list[dict[str, list[Message]]]:
    """Chat rows `{"messages": [...]}`, one a task: what was asked, and an answer that follows the old rules in
    `share_old` of the rows, the current ones in the others; which ones is drawn by `seed`. A case that the old
    rules cannot decide follows the current ones.

    Raises:
        DecisionError: the current model cannot decide one of the cases.
    """
    drawn = generator(seed, "stale-logs").permutation(len(tasks))
    from_old = {int(i) for i in drawn[: round(share_old * len(tasks))]}
    opening: list[Message] = [{"role": "system", "content": system}] if system else []
    rows = []
    for index, task in enumerate(tasks):
        answer = _answer(old, task, fields) if index in from_old else None
        answer = answer or _answer(current, task, fields)
        if answer is None:
            raise DecisionError(f"{current.source}: cannot decide the case of task {task.id}")
        reply: Message = {"role": "assistant", "content": dumps(answer)}
        rows.append({"messages": [*opening, *task.messages(), reply]})
    return rows


def _answer(model: RuleModel, task: Task, fields: Sequence[str]) -> Any:
    """What `model` decides in the task's case, None where it cannot."""
    try:
        return project(model.evaluate(task.info["input"]).output, fields)
    except CaseError:
        return None


def _form(answer: Any) -> str:
    """An answer's fields and their types: what an old answer must share with the current ones."""
    if isinstance(answer, dict):
        return "{" + ",".join(f"{key}:{_form(answer[key])}" for key in sorted(answer)) + "}"
    return "number" if type(answer) in (int, float) else type(answer).__name__


def _count_edits(text: str) -> int:
    return sum(1 for _ in _edits(json.loads(text)))


def _edits(document: Document) -> Iterator[Edit]:
    """Every single change, as a function that makes it in `document`. Their number and order depend on the
    model's structure only, so an index means the same change in every version."""
    for node in document["nodes"]:
        content = node.get("content")
        if node["type"] == "decisionTableNode":
            outputs = [column["id"] for column in content["outputs"]]
            for upper, lower in pairwise(content["rules"]):
                yield _swap(upper, lower, outputs)
            for row in content["rules"]:
                for column in content["inputs"]:
                    yield from _moves(row, column["id"])
        elif node["type"] == "expressionNode":
            for expression in content["expressions"]:
                yield from _moves(expression, "value")
        elif node["type"] == "switchNode":
            for branch in content["statements"]:
                yield from _moves(branch, "condition")


def _swap(upper: Document, lower: Document, columns: Sequence[str]) -> Edit:
    """Two rows exchange their outcomes."""

    def edit() -> None:
        for column in columns:
            upper[column], lower[column] = lower.get(column, ""), upper.get(column, "")

    return edit


def _moves(holder: Document, key: str) -> Iterator[Edit]:
    """The thresholds of one condition, each moved up or down."""
    text = str(holder.get(key) or "")
    if not _THRESHOLD.search(text) or any(
        token.kind == "string" and ".." in token.text for token in tokens(text)
    ):
        return
    for factor in _MOVES:

        def edit(factor: float = factor) -> None:
            holder[key] = _THRESHOLD.sub(lambda m: m[1] + _moved(m[2], factor), str(holder[key]))

        yield edit


def _moved(number: str, factor: float) -> str:
    value = float(number.replace("_", "")) * factor
    return str(round(value)) if "." not in number else str(round(value, 4))
