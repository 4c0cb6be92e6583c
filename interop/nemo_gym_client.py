"""Resources servers of NeMo Gym, used here: `nemo-gym:http://localhost:8000?rows=example.jsonl`.

A row of the dataset is a task. What its `simple_agent` does is done here: a session is seeded by the row, a
call goes to `/NAME`, a turn without a call ends the episode, and `/verify` gives the reward; a masked sample is
not scored. `?agent=gymnasium` plays `/reset` and `/step`, as its `gymnasium_agent` does, and sums the rewards.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import dumps, read_jsonl
from vertigym.core.types import Message, Score, Task
from vertigym.envs.env import Env, Turn
from vertigym.envs.tasks import TaskSet
from vertigym.envs.tool_calls import is_call, tool_call
from vertigym.interop.foreign_env import drawn_split, score_within
from vertigym.interop.json_client import JsonClient, RefusedRequestError
from vertigym.interop.responses_items import call_items, message_item, nested_tool, opening_messages, response

_PARAMETERS = "responses_create_params"


class NemoGymEnv(Env):
    """The rows of a dataset, and the server that judges them."""

    def __init__(
        self, url: str, tasks: TaskSet, *, agent: Literal["simple", "gymnasium"], turns: int, timeout_s: float
    ) -> None:
        super().__init__(tasks)
        if agent not in ("simple", "gymnasium"):
            raise ConfigError(f"agent {agent!r}: simple or gymnasium")
        self.max_turns, self.parallel_steps = turns, 8
        self._url, self._agent, self._timeout_s = url, agent, timeout_s
        self._client = JsonClient(url, timeout_s)
        self._items: list[dict[str, Any]] = []
        self._earned = 0.0

    def begin(self, task: Task) -> Sequence[Message]:
        """Seed a session with the row."""
        self._client = JsonClient(self._url, self._timeout_s)
        self._items, self._earned = [], 0.0
        row = task.info["row"]
        self.tools = [nested_tool(tool) for tool in row[_PARAMETERS].get("tools") or ()]
        if self._agent == "simple":
            self._client.ask("/seed_session", row)
            return task.messages()
        shown = self._client.ask("/reset", row).get("observation")
        return [*task.messages(), *([_user(shown)] if shown else [])]

    def respond(self, action: str) -> Turn:
        """Play a call or a step; the verdict at the end."""
        if self._agent == "gymnasium":
            return self._stepped(action)
        if not (self.tools and is_call(action)):
            self._items.append(message_item(action))
            return Turn(score=self._verified())
        try:
            name, arguments = tool_call(action)
            output = self._client.text(f"/{name}", arguments)
        except (ValueError, RefusedRequestError) as error:  # what the model wrote is at fault, and it is told
            return Turn(messages=[{"role": "tool", "content": str(error)}])
        self._items += call_items(f"call_{len(self._items)}", name, arguments, output)
        return Turn(messages=[{"role": "tool", "content": output}])

    def close_episode(self) -> Score:
        """Out of turns: what was done is judged."""
        return self._sum() if self._agent == "gymnasium" else self._verified()

    def _verified(self) -> Score:
        done = self._client.ask("/verify", {**self.task.info["row"], "response": response(self._items)})
        if done.get("mask_sample"):
            return Score.unscored(str(done.get("failure_reason") or done.get("failure_kind") or "masked"))
        given = {*self.task.info["row"], "reward", "response", "mask_sample"}
        parts = {
            key: float(one) for key, one in done.items() if key not in given and isinstance(one, int | float)
        }
        return score_within(float(done["reward"]), self.ranges["score"], parts)

    def _sum(self) -> Score:
        return score_within(self._earned, self.ranges["score"], {})

    def _stepped(self, action: str) -> Turn:
        item = message_item(action)
        if self.tools and is_call(action):
            try:
                name, arguments = tool_call(action)
            except ValueError as error:
                return Turn(messages=[_user(str(error))])
            item = call_items("call", name, arguments, "")[0]
        body = {**self.task.info["row"], "response": response([item])}
        seen = self._client.ask("/step", body)
        self._earned += float(seen.get("reward") or 0.0)
        told = [one["output"] for one in (seen.get("info") or {}).get("tool_outputs", ())]
        messages: list[Message] = [{"role": "tool", "content": text} for text in told]
        messages += [_user(seen["observation"])] if seen.get("observation") else []
        over = seen.get("terminated") or seen.get("truncated")
        return Turn(messages=messages, score=self._sum() if over else None)


def load(
    url: str,
    *,
    rows: str,
    agent: Literal["simple", "gymnasium"] = "simple",
    turns: int = 16,
    eval_share: float = 0.1,
    test_share: float = 0.1,
    low: float = 0.0,
    high: float = 1.0,
    timeout_s: float = 60.0,
) -> Env:
    """The server at an address, over the rows of a file.

    A file has no splits: a row's own words say which it belongs to, by the shares.

    Raises:
        ConfigError: no address. DataError: no such file, or a row is none of NeMo Gym's.
    """
    found = read_jsonl(Path(rows))
    tasks = [_task(row, f"{rows}:{n}", n, eval_share, test_share) for n, row in enumerate(found, 1)]
    env = NemoGymEnv(url, TaskSet(tasks), agent=agent, turns=turns, timeout_s=timeout_s)
    env.ranges = {"score": (low, high)}
    return env


def _task(row: Any, where: str, number: int, eval_share: float, test_share: float) -> Task:
    if not isinstance(row, dict) or "input" not in (row.get(_PARAMETERS) or {}):
        raise DataError(f"{where}: no row of NeMo Gym: it needs {_PARAMETERS} with an input")
    split = drawn_split(dumps(row), eval_share, test_share)
    prompt = opening_messages(row[_PARAMETERS]["input"])
    return Task.model_validate({"id": f"row-{number}", "prompt": prompt, "info": {"row": row}, "split": split})


def _user(text: str) -> Message:
    return {"role": "user", "content": text}
