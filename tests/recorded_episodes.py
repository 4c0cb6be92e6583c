"""Episodes of environments as our own runner played them, and the neighbours' protocols that play them again.

A reply is found by the first question and the number of replies before. Some replies are spoilt, so that every
verdict occurs.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from vertigym.core.files import write_jsonl
from vertigym.core.seeds import derive, generator
from vertigym.core.types import Prompt, Sampling, Split
from vertigym.envs import registry
from vertigym.envs.agent.importer import import_agent
from vertigym.envs.decision.builtin import RETURNS, folder_of
from vertigym.envs.tool_calls import is_call, tool_call
from vertigym.interop.nemo_gym_server import NemoGymServer
from vertigym.interop.openenv_server import OpenEnvServer
from vertigym.interop.played_episode import PlayedEpisode
from vertigym.interop.responses_items import call_items, message_item, response
from vertigym.policies.scripted import Scripted, expert
from vertigym.rollouts.rollout import Episode, rollout

from . import desk as traces

CODE = 'id = "acme/Shifts-v0"\nkind = "code"\nfiles = ["tasks.jsonl"]\n'
SIZES: dict[Split, int] = {"train": 8, "eval": 250, "test": 8}
FLAKY = """
from vertigym.core.types import Task
from vertigym.envs import SingleTurnEnv, TaskSet
from vertigym.rewards.rubric import Rubric


def load_environment() -> SingleTurnEnv:
    def judged(completion: str, answer: str) -> float:
        if int(answer) % 3 == 0:
            raise RuntimeError("the judge is away")
        return float(completion == answer)

    tasks = [
        Task(id=f"t{i}", prompt=f"say {i}", answer=str(i), split="eval", cluster=f"c{i % 7}") for i in range(30)
    ]
    return SingleTurnEnv(TaskSet(tasks), Rubric(judged))
"""


@dataclass
class Recording:
    """By task: scores and what was said; and what to say when."""

    env: str
    scores: dict[str, float | None]
    said: dict[str, list[str]]
    replies: list[tuple[str, int, str]]


def write_environments(home: Path, eval_tasks: int = 40) -> dict[str, str]:
    """A decision, an agent with tools, code, sums, a trace, and a verifier that fails at times: name -> id."""
    (home / "flaky_judge.py").write_text(FLAKY)
    sizes = SIZES | {"eval": eval_tasks}
    import_agent(folder_of(RETURNS) / "decision.json", "shop/Desk-v0", home / "desk", sizes=sizes)
    (home / "intent").mkdir()
    traces.intent(home / "intent", 12 * eval_tasks)
    (home / "shifts").mkdir()
    (home / "shifts" / "env.toml").write_text(CODE)
    write_jsonl(home / "shifts" / "tasks.jsonl", list(_functions(eval_tasks)))
    return {
        "decision": "vertigym/Returns-v0",
        "agent": str(home / "desk"),
        "code": str(home / "shifts"),
        "math": "vertigym/Arithmetic-v0",
        "trace": str(home / "intent"),
        "flaky": "flaky_judge",
    }


def _functions(count: int) -> Iterator[dict[str, Any]]:
    """Rows of a code environment: a function each, and the calls that judge it."""
    for number in range(count):
        name, times = f"shift_{number}", number % 7 + 2
        cases = [{"args": [x], "expected": x * times - number} for x in (0, 3, -5)]
        yield {
            "id": name,
            "prompt": f"Write `{name}(x)`: x times {times}, less {number}.",
            "answer": f"```python\ndef {name}(x):\n    return x * {times} - {number}\n```",
            "split": "eval",
            "cluster": f"times {times}",
            "info": {"entry": name, "tests": {"kind": "cases", "entry": name, "cases": cases}},
        }


def record(env_id: str, limit: int) -> Recording:
    """The expert's episodes, some with one reply spoilt. A seed is that of a first sample of an eval."""
    env, best = registry.make(env_id), expert()

    def write(prompt: Prompt) -> str:
        spoilt = generator("spoilt", prompt.seed).random() < 0.2
        (reply,) = best.generate([prompt], Sampling())
        return "nonsense" if spoilt else reply.text

    name, found = registry.spec(env_id).id, Recording(env_id, {}, {}, [])
    episodes = [
        Episode(env.tasks.get(t), derive(0, "eval", name, t, 0)) for t in list(env.tasks.ids("eval"))[:limit]
    ]
    first: dict[str, str] = {}
    for one in rollout(Scripted(write), env, episodes, Sampling()):
        asked = next(message["content"] for message in one.messages if message["role"] == "user")
        if first.setdefault(asked, one.task_id) != one.task_id:
            continue  # a reply is found by the first question
        said = [message["content"] for message in one.messages if message["role"] == "assistant"]
        found.scores[one.task_id], found.said[one.task_id] = one.score.value, said
        found.replies += [(asked, number, text) for number, text in enumerate(said)]
    return found


def scores_in_trl(recording: Recording) -> dict[str, float | None]:
    """What TRL has to find: there a turn without a call is the last, and what then stands is judged."""
    env, expected = registry.make(recording.env), dict(recording.scores)
    for task, said in recording.said.items():
        if not all(map(is_call, said[:-1])):
            episode = PlayedEpisode(env, task)
            for text in said:
                episode.step(text)
                if not is_call(text):
                    break
            expected[task] = episode.end().value
    return expected


def scores_by_openenv(recording: Recording) -> dict[str, float | None]:
    """What the server says over its WebSocket."""
    server = OpenEnvServer(registry.make(recording.env), registry.spec(recording.env).id)
    found: dict[str, float | None] = {}
    with TestClient(server.app(), base_url="http://localhost").websocket_connect(
        "ws://localhost/ws"
    ) as session:
        for task, said in recording.said.items():
            session.send_json({"type": "reset", "data": {"task": task}})
            data = session.receive_json()["data"]
            assert data["observation"]["messages"]
            for text in said:
                assert not data["done"]
                session.send_json({"type": "step", "data": {"message": text}})
                data = session.receive_json()["data"]
            assert data["done"]
            assert bool(data["observation"]["unscored"]) == (data["reward"] is None)
            found[task] = data["reward"]
    return found


def scores_by_nemo_gym(recording: Recording) -> dict[str, float | None]:
    """What the server says to the calls that `gymnasium_agent` makes where an episode has several turns, and
    `simple_agent` where it has one."""
    env = registry.make(recording.env)
    app = NemoGymServer(env, registry.spec(recording.env).id).app()
    several = env.max_turns > 1
    return {task: _by_nemo_gym(app, task, said, several) for task, said in recording.said.items()}


def _by_nemo_gym(app: Any, task: str, said: list[str], several: bool) -> float | None:
    row = {"responses_create_params": {"input": []}, "verifier_metadata": {"task": task}}
    client = TestClient(app, base_url="http://localhost")
    assert client.post("/reset" if several else "/seed_session", json=row).status_code == 200
    for text in said if several else ():
        stepped = client.post("/step", json={**row, "response": response([_item(text)])}).json()
    if several:
        assert stepped["terminated"]
        return float(stepped["reward"])
    done = client.post("/verify", json={**row, "response": response([message_item(said[-1])])}).json()
    assert not done["mask_sample"] or (done["reward"] == 0 and done["failure_reason"])
    return None if done["mask_sample"] else float(done["reward"])


def _item(text: str) -> Mapping[str, Any]:
    """A reply as a call where it is a well-written one, which text it then stands for is the same."""
    if not is_call(text):
        return message_item(text)
    try:
        return call_items("call", *tool_call(text), "")[0]
    except ValueError:
        return message_item(text)


def dumped(recording: Recording) -> str:
    """As another process reads it."""
    return json.dumps({"said": recording.said, "scores": recording.scores})
