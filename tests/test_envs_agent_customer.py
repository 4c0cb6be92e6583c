"""Agent mode: the customer, scripted or played by a model, answers what is asked and gives nothing away."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.seeds import generator
from vertigym.envs.agent.customer import ScriptedCustomer, misspell, read_answer
from vertigym.envs.agent.env import AgentEnv, load
from vertigym.envs.agent.expert import replay
from vertigym.envs.agent.importer import import_agent
from vertigym.envs.folders import EnvFolder

from .agent_returns import DECISION, SIZES, asking, tasks_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("agent") / "returns"
    import_agent(DECISION, "shop/Returns-v0", out, sizes=SIZES)
    return out


@pytest.fixture
def env(folder: Path) -> Iterator[AgentEnv]:
    opened = load(EnvFolder(folder))
    yield opened
    opened.close()


def test_the_customer_answers_what_is_asked_and_gives_nothing_away(env: AgentEnv) -> None:
    facts = {"days": "12", "loyaltyTier": "gold", "item.kind": "lamp"}
    customer = ScriptedCustomer(facts)
    assert customer.reply("How many days, and what loyalty tier?")[0] == "days: 12\nloyaltyTier: gold"
    assert customer.reply("What kind?") == ("item.kind: lamp", ["item.kind"])
    assert customer.reply("What will be decided? fee? decision?")[1] == []
    for task in tasks_of(env):
        env.reset(seed=0, options={"task": task})
        answer = task.answer["decision"]
        assert not any(answer == value for value in task.info["says"].values())
        said = env.step(f"Tell me the answer, please: {' '.join(env.config.outputs)} {answer}")[0]
        assert answer not in said.partition(":")[2]


def test_a_slip_of_the_pen_is_still_understood() -> None:
    known = ["gold", "silver", "platinum", "good", 3]
    rng = generator(0, "slips")
    slips = {misspell("platinum", known, rng) for _ in range(20)}
    assert "platinum" not in slips
    assert {read_answer(slip, known) for slip in slips} == {"platinum"}
    assert misspell("ab", ["ab", "ba"], rng) == "ab"
    assert read_answer("12", [5, 12]) == 12
    assert read_answer("true", [True]) is True
    assert read_answer('"12"', ["12"]) == "12"
    assert read_answer("nothing like it", known) == "nothing like it"


def test_misspelt_facts_occur_and_are_solved(tmp_path: Path) -> None:
    import_agent(DECISION, "shop/Slips-v0", tmp_path / "e", sizes=SIZES, settings=["customer.misspelt=1.0"])
    env = load(EnvFolder(tmp_path / "e"))
    slips = [
        name
        for task in tasks_of(env)
        for name in task.info["withheld"]
        if isinstance(value := task.info["input"][name], str) and task.info["says"][name] != value
    ]
    assert len(slips) > 5
    assert all(replay(env, task, list(env.reference(task) or [])).value == 1.0 for task in tasks_of(env))
    env.close()


class Model(BaseHTTPRequestHandler):
    """Plays the customer: repeats the fact it was told, or is out of order."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        told, asked = body["messages"][0]["content"], body["messages"][-1]["content"]
        name = asked.removeprefix("What is ").removesuffix("?")
        line = next((line for line in told.splitlines() if line.startswith(f"{name}: ")), "I do not know.")
        self.send_response(500 if asked == "break" else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [{"message": {"content": line}}]}).encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        pass


def test_a_model_plays_the_customer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vertigym.core.chat_client.time.sleep", lambda seconds: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        env = load(EnvFolder(folder), customer={"endpoint": url, "model": "m"})
        task = asking(env)
        score = replay(env, task, list(env.reference(task) or []))
        assert (score.value, score.parts["lookups"]) == (1.0, 1.0)
        env.reset(seed=0, options={"task": task})
        *_, info = env.step("break")
        assert info["score"].value is None  # the machine failed, not the policy
        assert "status 5" in info["score"].evidence["reason"]
        server.shutdown()
    env.close()
