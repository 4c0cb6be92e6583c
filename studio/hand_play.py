"""Environments to browse, and to play by hand: choose a task, answer it, see the score and the rules it hits.

The one idea: nothing is kept between requests. A page sends all its answers so far, and the episode is played
again from the start; an environment whose episodes cannot be repeated is not played here.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from vertigym import envs
from vertigym.core.errors import InputError, VertigymError
from vertigym.core.types import SPLITS, Score
from vertigym.envs import registry
from vertigym.envs.env import Env
from vertigym.envs.explained import rule_texts, task_rules
from vertigym.reports.before_after import answer_fields
from vertigym.reports.mistakes import mistakes

Json = dict[str, Any]
_TASKS = 500  # ids of a split that a page offers; any other can be typed


class HandPlay(BaseModel):
    """What a page has played: a task and every answer so far."""

    model_config = ConfigDict(extra="forbid")

    id: str
    task: str
    actions: list[str] = Field([], max_length=200)


def environment_rows(near: Iterable[str]) -> list[Json]:
    """Every environment that can be opened by name, those near the runs first."""
    rows = []
    for name in dict.fromkeys([*near, *registry.ids()]):
        try:
            found = registry.spec(name)
        except VertigymError:
            continue  # a folder that a run named is gone, or another working directory's
        rows.append({"name": name, "id": found.id, "source": found.source, "description": found.description})
    return rows


@lru_cache(maxsize=8)
def opened(name: str) -> Env:
    """The environment, kept open.

    Raises:
        InputError: as in `envs.make`.
    """
    return envs.make(name)


def environment_data(name: str) -> Json:
    """What the page of an environment shows before a task is chosen."""
    env = opened(name)
    ids = {split: list(env.tasks.ids(split)) for split in SPLITS}
    return {
        "splits": {split: found[:_TASKS] for split, found in ids.items() if found},
        "sizes": {split: len(found) for split, found in ids.items() if found},
        "rules": len(rule_texts(env)),
        "turns": env.max_turns,
        "notes": list(env.notes),
        "playable": env.repeatable,
    }


def play(episode: HandPlay) -> Json:
    """The episode after its answers: the chat so far and, at its end, the score, the right answer and the rules
    that the task's case hits.

    Raises:
        InputError: no such task, or the environment's episodes cannot be repeated.
    """
    known = opened(episode.id)
    if not known.repeatable:
        raise InputError(f"{episode.id}: its episodes cannot be played again, so not by hand either")
    env = known.fresh()
    try:
        _, info = env.reset(seed=0, options={"task": episode.task})
        over = False
        for action in episode.actions:
            if over:
                break
            _, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
        task = env.task
    finally:
        env.close()
    messages = [{"role": m["role"], "text": m["content"]} for m in info["messages"]]
    shown: Json = {"messages": messages, "over": over, "tools": info["tools"]}
    return shown | (_verdict(known, task.id, episode.actions[-1], info["score"]) if over else {})


def _verdict(env: Env, task_id: str, last: str, score: Score) -> Json:
    right: Sequence[str] = env.reference(env.tasks.get(task_id)) or ()
    texts = rule_texts(env)
    return {
        "score": score.value,
        "parts": dict(score.parts),
        "evidence": {name: str(value)[:300] for name, value in score.evidence.items()},
        "mistakes": mistakes(score.value, score.evidence),
        "right": list(right),
        "fields": answer_fields(last, right[-1]) if len(right) == 1 else None,
        "rules": [texts.get(rule, rule) for rule in task_rules(env, [task_id]).get(task_id, [])],
    }
