"""Environments of other programs in place of an id: gymnasium's, and servers and packages of each protocol."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from vertigym.core.errors import ConfigError, InfrastructureError, InputError, UnknownNameError
from vertigym.core.files import write_jsonl
from vertigym.core.types import Prompt, Sampling
from vertigym.envs import registry
from vertigym.envs.env import Env
from vertigym.interop import openenv_client
from vertigym.interop.gymnasium_text import uncoloured
from vertigym.interop.nemo_gym_server import NemoGymServer, nemo_gym_rows
from vertigym.interop.openenv_server import OpenEnvServer
from vertigym.policies.scripted import Scripted
from vertigym.rollouts.rollout import Episode, rollout

from .served import listening

RETURNS = "vertigym/Returns-v0"
LAKE = "gymnasium:FrozenLake-v1?is_slippery=false"
WAY = ("1", "1", "2", "1", "2", "2")  # down, down, right, down, right, right: over the 4 x 4 lake
# Version 0 of verifiers as it is called: `load_environment`, a dataset, a rollout that asks a client's address.
FAKE = {
    "verifiers/__init__.py": """
import json, os, urllib.request

class Rows(list):
    def select(self, places):
        return [self[place] for place in places]

class Loaded:
    def __init__(self, answer):
        self.answer = answer

    def get_dataset(self):
        return Rows({"prompt": [{"role": "user", "content": f"say {n}"}], "answer": str(n)} for n in range(8))

    async def run_rollout(self, row, client, model, sampling):
        headers = {"Authorization": "Bearer " + os.environ[client.key]}
        body = json.dumps({"model": model, "messages": row["prompt"], "temperature": 0.5}).encode()
        import asyncio
        def ask():
            with urllib.request.urlopen(urllib.request.Request(client.url + "/chat/completions", body, headers)) as said:
                return json.load(said)
        said = (await asyncio.to_thread(ask))["choices"][0]["message"]["content"]
        if row["answer"] == "3":
            return {"reward": 0.0, "error": "the judge is away"}
        return {"reward": float(said == self.answer), "metrics": {"length": len(said)}, "error": None}

def load_environment(name, answer="2"):
    if name != "echo":
        raise ImportError(f"no {name}")
    print("what others print")
    return Loaded(answer)
""",
    "verifiers/types.py": """
class ClientConfig:
    def __init__(self, api_base_url, api_key_var):
        self.url, self.key = api_base_url, api_key_var
""",
}


def play(env: Env, task: str, *said: str) -> Any:
    """The last `info` of an episode."""
    env.reset(options={"task": task})
    for text in said:
        *_, info = env.step(text)
    return info


def test_a_lake_is_crossed_and_what_is_no_action_is_answered() -> None:
    env = registry.make(LAKE)
    assert env.max_turns == 100
    assert play(env, "eval-0", *WAY)["score"].value == 1.0
    assert play(env, "eval-0", "2", "right", "go 1, or 2")["messages"][-1]["content"] == (
        "That is no action: write a whole number from 0 to 3"
    )
    assert play(env, "eval-0", "I go down: 1", *WAY[1:])["score"].value == 1.0


def test_gymnasium_makes_ours_alone_and_several_at_once() -> None:
    assert RETURNS in registry.ids()  # which registers them
    env = registry.make(RETURNS)
    several = gymnasium.make_vec(RETURNS, num_envs=2, vectorization_mode="sync")
    _, infos = several.reset(options={"task": env.tasks.ids("eval")[0]})
    (right,) = env.reference(env.tasks.get(env.tasks.ids("eval")[0]))  # type: ignore[misc]
    assert list(several.step([right, "nonsense"])[1]) == [1.0, 0.0]
    assert set(infos["messages"][0][0]) == {"role", "content"}


def test_nonsense_is_worth_no_more_than_steps_that_cost() -> None:
    env = registry.make("gymnasium:Taxi-v4?low=-200&high=20&turns=4")
    assert play(env, "eval-0", *["nonsense"] * 4)["score"].value == -200.0
    assert play(env, "eval-0", "1", "1", "nonsense", "1")["score"].value == -200.0
    assert play(env, "eval-0", *"1111")["score"].value == -4.0
    said = play(registry.make("gymnasium:Taxi-v4?turns=2"), "eval-0", "1", "1")["score"]
    assert said.value is None
    assert "outside [0, 1]: say low= and high=" in said.evidence["reason"]


def test_where_one_stands_is_not_lost_with_the_colours() -> None:
    assert uncoloured("\x1b[41mS\x1b[0mF") == "[S: on red]F"
    assert uncoloured("\x1b[34;1mY\x1b[0m") == "[Y: blue bold]"


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("gymnasium:FrozenLak-v1", UnknownNameError, "did you mean 'FrozenLake-v1'"),
        ("gymnasium:FrozenLake-v1?map=4", ConfigError, "cannot be made"),
        (f"{LAKE}&low=2", ConfigError, "low .2. < high"),
        (f"{LAKE}&adapter=no.such:Adapter", ConfigError, "does not load"),
        ("openenv:localhost:8000", ConfigError, "must start with http"),
        ("openenv:http://127.0.0.1:9", InfrastructureError, "does not answer"),
        ("nemo-gym:http://127.0.0.1:9?rows=none.jsonl", InputError, "none.jsonl"),
        ("verifiers:nothing?python=/no/such", ConfigError, "cannot be started"),
    ],
)
def test_what_cannot_be_reached_is_one_line(name: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as raised:
        registry.make(name)
    assert "\n" not in str(raised.value)


def test_a_server_of_ours_is_played_as_the_environment_is() -> None:
    env = registry.make(RETURNS)
    with listening(OpenEnvServer(env, RETURNS).app()) as url:
        there = registry.make(f"openenv:{url}")
        info = play(there, "eval-1", "{}")
        assert "JSON" in info["messages"][-2]["content"]
        assert info["score"].value == 0.0
        tasks = [there.tasks.get(f"train-{n}") for n in range(20)]
        assert len({str(task.prompt) for task in tasks}) > 10  # a seed draws the task


def counting(messages: int) -> Starlette:
    """A server of OpenEnv whose actions have two fields; the third step ends it."""

    async def session(socket: WebSocket) -> None:
        await socket.accept()
        steps = 0
        async for text in socket.iter_text():
            asked = json.loads(text)
            if asked["type"] == "step" and set(asked["data"]) != {"name", "count"}:
                await socket.send_json(
                    {"type": "error", "data": {"code": "VALIDATION_ERROR", "message": "fields"}}
                )
                continue
            steps = steps + 1 if asked["type"] == "step" else 0
            seen = {
                "observation": {"steps": steps},
                "reward": None if steps < messages else 0.25,
                "done": steps == 3,
            }
            await socket.send_json({"type": "observation", "data": seen})

    fields = {"name": {"type": "string"}, "count": {"type": "integer"}, "metadata": {}}
    schema = {"action": {"title": "A", "properties": fields, "required": ["name", "count"]}, "observation": {}}
    return Starlette(
        routes=[
            Route("/schema", lambda _: JSONResponse(schema)),
            Route("/metadata", lambda _: JSONResponse({"name": "counting", "description": None})),
            WebSocketRoute("/ws", session),
        ]
    )


@pytest.mark.parametrize(("first_reward", "expected"), [(1, 0.75), (3, 0.25), (9, None)])
def test_rewards_are_summed_and_an_action_is_json_of_its_fields(
    first_reward: int, expected: float | None
) -> None:
    action = 'so: {"name": "a", "count": 1}'.removeprefix("so: ")
    with listening(counting(first_reward)) as url:
        env = registry.make(f"openenv:{url}")
        info = play(env, "eval-0", action, '{"name": "a"}', "words", action, action)
        assert info["score"].value == expected
        said = [message["content"] for message in info["messages"]]
        assert "VALIDATION_ERROR" in said[4]
        assert "a JSON object with these fields" in said[6]


def narrow(places: int, code: str = "CAPACITY_REACHED") -> Starlette:
    """A server of OpenEnv with few places, as OpenEnv's own template has one: it refuses, and closes; a place is
    free some time after its session has ended."""
    taken = 0

    async def session(socket: WebSocket) -> None:
        nonlocal taken
        await socket.accept()
        if taken >= places:
            told = {"code": code, "message": f"Server at capacity: {taken}/{places}"}
            await socket.send_json({"type": "error", "data": told})
            await socket.close()
            return
        taken += 1
        async for text in socket.iter_text():
            ends = json.loads(text)["type"] == "step"
            seen = {"observation": {"said": "ready"}, "reward": 0.5 if ends else 0.0, "done": ends}
            await socket.send_json({"type": "observation", "data": seen})
        await asyncio.sleep(0.05)
        taken -= 1

    schema = {"action": {"properties": {"message": {"type": "string"}}, "required": ["message"]}}
    return Starlette(
        routes=[
            Route("/schema", lambda _: JSONResponse(schema)),
            Route("/metadata", lambda _: JSONResponse({"name": "narrow", "description": None})),
            WebSocketRoute("/ws", session),
        ]
    )


@pytest.mark.parametrize("places", [1, 2])
def test_a_server_with_few_places_is_not_asked_for_more(places: int) -> None:
    with listening(narrow(places)) as url:
        env = registry.make(f"openenv:{url}?sessions={places}")
        episodes = [Episode(f"train-{n}") for n in range(7)]
        played = rollout(Scripted(lambda _: "hello"), env, episodes, Sampling())
    assert [(one.score.value, one.score.evidence) for one in played] == [(0.5, {})] * 7


def test_why_a_server_refuses_a_session_is_said() -> None:
    with listening(narrow(0, code="FACTORY_ERROR")) as url:
        env = registry.make(f"openenv:{url}")
        with pytest.raises(InfrastructureError, match="refuses a reset: FACTORY_ERROR"):
            env.reset(options={"task": "train-0"})


def test_a_full_server_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openenv_client, "_FULL_S", 0.2)
    with listening(narrow(0)) as url:
        env = registry.make(f"openenv:{url}")
        with pytest.raises(InfrastructureError, match=r"no place for another session: .* say sessions=N"):
            env.reset(options={"task": "train-0"})


@pytest.mark.parametrize("agent", ["simple", "gymnasium"])
def test_a_resources_server_judges_what_was_said_here(agent: str, tmp_path: Path) -> None:
    env = registry.make(RETURNS)
    write_jsonl(tmp_path / "rows.jsonl", list(nemo_gym_rows(env, "eval"))[:12])
    with listening(NemoGymServer(env, RETURNS).app()) as url:
        there = registry.make(
            f"nemo-gym:{url}?rows={tmp_path / 'rows.jsonl'}&agent={agent}&eval_share=1&test_share=0"
        )
        for task in map(there.tasks.get, there.tasks.ids("eval")):
            known = env.tasks.get(task.info["row"]["verifier_metadata"]["task"])
            assert task.messages() == env.reset(options={"task": known})[1]["messages"]
            assert play(there, task.id, env.reference(known)[0])["score"].value == 1.0  # type: ignore[index]
            assert play(there, task.id, "nonsense")["score"].value == 0.0


def test_a_masked_sample_is_not_scored(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"responses_create_params": {"input": "hello"}}])
    answers = {"reward": 0.0, "mask_sample": True, "failure_reason": "the judge is away"}
    routes = [
        Route("/seed_session", lambda _: JSONResponse({}), methods=["POST"]),
        Route("/verify", lambda _: JSONResponse(answers), methods=["POST"]),
    ]
    with listening(Starlette(routes=routes)) as url:
        env = registry.make(f"nemo-gym:{url}?rows={tmp_path / 'rows.jsonl'}")
        score = play(env, "row-1", "hello")["score"]
    assert (score.value, score.evidence["reason"]) == (None, "the judge is away")


def test_an_environment_of_verifiers_asks_our_policy_and_its_reward_is_the_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in FAKE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    env = registry.make("verifiers:echo?tasks=6&eval_share=1&test_share=0")
    tasks = env.tasks.ids("eval")
    assert len(tasks) == 6

    def write(prompt: Prompt) -> str:
        return prompt.messages[-1]["content"].removeprefix("say ")

    played = rollout(Scripted(write), env, [Episode(task) for task in tasks], Sampling())
    scores = {one.task_id: one.score for one in played}
    assert not [s.evidence for t, s in scores.items() if s.value is None and t != "3"]
    assert {task: score.value for task, score in scores.items()} == {
        "0": 0.0, "1": 0.0, "2": 1.0, "3": None, "4": 0.0, "5": 0.0,
    }  # fmt: skip
    assert scores["2"].parts == {"length": 1, "calls": 1.0}
    assert scores["3"].evidence["reason"] == "the judge is away"
    with pytest.raises(ConfigError, match="no other"):
        registry.make("verifiers:other")


@pytest.mark.parametrize("by_tool", [False, True])
def test_tasks_of_version_one_of_verifiers_with_and_without_a_tool(
    by_tool: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    vf_eval = os.environ.get("VF_EVAL", "")
    if not vf_eval:
        pytest.skip("VF_EVAL names no vf-eval beside the Python that has verifiers")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    if by_tool:
        monkeypatch.setenv("SUMS_TOOL", "1")
    python = Path(vf_eval).with_name("python")
    env = registry.make(f"verifiers:verifiers_sums?python={python}&eval_share=0&test_share=0")

    def write(prompt: Prompt) -> str:
        *_, said = prompt.messages
        if said["role"] == "tool":
            return str(said["content"])
        number = int(said["content"].split()[2])
        if not by_tool:
            return str(number + 10 if number else "no idea")
        call = {
            "name": prompt.tools[0]["function"]["name"],
            "arguments": {"a": number, "b": 10 if number else 9},
        }
        return f"<tool_call>{json.dumps(call)}</tool_call>"

    played = rollout(Scripted(write), env, [Episode(task) for task in env.tasks.ids("train")], Sampling())
    scores = {one.task_id: (one.score.value, one.score.parts["calls"]) for one in played}
    calls = 2.0 if by_tool else 1.0
    assert scores == {"t0": (0.0, calls), "t1": (1.0, calls), "t2": (1.0, calls)}
