"""A two-turn environment: a case may lack a field, which must be asked for before the decision.

    user       lamp, opened: no            user       shoes, days: 15, opened: no
    assistant  ask days                    assistant  refund
    user       days: 35
    assistant  decline

An item comes back within its own number of days, and only unopened. The right decision scores 1; after a
question that was not needed 0.7, and without one that was needed nothing, however lucky. Asking for what is
missing, and deciding on the answer, is what a policy has to learn from logs in which half the clerks guess. All
splits draw from the same 216 cases (72, whole or without a field), which are the clusters: what is tested is
the procedure, not new cases.

    python examples/ask_first/ask_first.py runs/ask-first-logs.jsonl        writes such logs, for the warm start
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vertigym.core.files import write_jsonl
from vertigym.core.seeds import generator
from vertigym.core.types import Message, Score, Split, Task
from vertigym.envs import Env
from vertigym.envs.env import Turn
from vertigym.envs.tasks import GeneratedTasks

LIMITS = {"book": 10, "lamp": 20, "phone": 30, "shoes": 40}
FIELDS = ("days", "opened")
SIZES: dict[Split, int] = {"train": 600, "eval": 400, "test": 400}


class AskFirst(Env):
    """Two turns at most: a question or a decision, then a decision."""

    max_turns = 2

    def __init__(self) -> None:
        super().__init__(GeneratedTasks(make_task, SIZES))
        self._asked = ""

    def begin(self, task: Task) -> Sequence[Message]:
        """The case, without the missing field."""
        self._asked = ""
        return task.messages()

    def respond(self, action: str) -> Turn:
        """The field that was asked for, or the verdict."""
        action = action.strip()
        field = action.removeprefix("ask ")
        if not self._asked and action != field and field in FIELDS:
            self._asked = field
            return Turn(messages=[{"role": "user", "content": f"{field}: {self.task.info[field]}"}])
        return Turn(score=self._verdict(action))

    def reference(self, task: Task) -> Sequence[str]:
        """Ask for what is missing, then decide."""
        missing = task.info["missing"]
        return ([f"ask {missing}"] if missing else []) + [str(task.answer)]

    def _verdict(self, action: str) -> Score:
        right, missing = action == self.task.answer, self.task.info["missing"]
        worth = 1.0 if self._asked == missing else 0.0 if missing else 0.7
        return Score(right * worth, {"right": float(right), "asked": float(self._asked == missing)})


def load_environment() -> Env:
    """What the registry calls."""
    return AskFirst()


def make_task(split: Split, index: int) -> Task:
    """The same case for the same name; about two in three lack a field."""
    random = generator("ask-first", split, index)
    item = sorted(LIMITS)[random.integers(len(LIMITS))]
    info: dict[str, Any] = {
        "days": 5 * int(random.integers(1, 10)),
        "opened": ("no", "no", "yes")[random.integers(3)],
    }
    info["missing"] = ("", *FIELDS)[random.integers(3)]
    said = [f"{field}: {info[field]}" for field in FIELDS if field != info["missing"]]
    refund = info["days"] <= LIMITS[item] and info["opened"] == "no"
    return Task(
        id=f"{split}-{index}",
        prompt=", ".join([item, *said]),
        answer="refund" if refund else "decline",
        info=info,
        split=split,
        cluster=f"{item} {info['days']} {info['opened']} {info['missing']}",
    )


def logs(*, seed: int = 0) -> list[dict[str, Any]]:
    """Chats of careless clerks: half ask for what is missing, and one decision in four is wrong."""
    env = AskFirst()
    return [_logged(env, env.tasks.get(i), seed) for i in env.tasks.ids("train")]


def _logged(env: AskFirst, task: Task, seed: int) -> dict[str, Any]:
    random = generator(seed, "ask-first logs", task.id)
    chat = task.messages()
    missing = task.info["missing"]
    asks = missing or FIELDS[random.integers(2)]
    if random.random() < (0.5 if missing else 0.2):
        chat.append({"role": "assistant", "content": f"ask {asks}"})
        chat.append({"role": "user", "content": f"{asks}: {task.info[asks]}"})
    wrong = {"refund": "decline", "decline": "refund"}[task.answer]
    chat.append({"role": "assistant", "content": wrong if random.random() < 0.25 else task.answer})
    return {"messages": chat}


if __name__ == "__main__":
    write_jsonl(Path(sys.argv[1]), logs())
