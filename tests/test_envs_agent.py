"""Agent mode: the database, the tools, what the final state earns, the proof of every task."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from gymnasium.utils.env_checker import check_env

from vertigym.core.errors import ConfigError
from vertigym.core.seeds import generator
from vertigym.core.types import Sampling, Score, Task
from vertigym.decisions.model import DecisionModel
from vertigym.decisions.outputs import project
from vertigym.envs import registry
from vertigym.envs.agent.config import DatabaseConfig, fits, schema_of
from vertigym.envs.agent.database import DECIDED, FIRST, LAST, Database, build_world, stored_cases
from vertigym.envs.agent.env import AgentEnv, load
from vertigym.envs.agent.expert import known_values, play_expert, replay, why_unfair
from vertigym.envs.agent.importer import import_agent
from vertigym.envs.check import check
from vertigym.envs.decision.builtin import RETURNS, folder_of
from vertigym.envs.folders import EnvFolder
from vertigym.envs.tool_calls import write_call
from vertigym.policies import tiny
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.model_folder import load_model
from vertigym.policies.scripted import expert
from vertigym.rewards.state import sqlite_state
from vertigym.rollouts.rollout import Episode, rollout

from .agent_returns import DECISION, SIZES, asking, tasks_of
from .conftest import CommandLine


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


def call(env: AgentEnv, does: str, **arguments: Any) -> Any:
    name = {"find": "find_customer", "list": "list_cases", "finish": "finish"}.get(does, f"{does}_case")
    return json.loads(env.step(write_call(name, **arguments))[0])


def test_every_task_is_solved_from_what_can_be_seen_and_in_no_other_way(folder: Path) -> None:
    """The proof of the import, again: the engine decides, the expert never sees the task's answer."""
    for violations in ("block", "punish"):
        env = load(EnvFolder(folder), violations=violations)
        model = DecisionModel.read(folder / "decision.json")
        every = tasks_of(env)
        assert len(every) == sum(SIZES.values())

        def decide(case: Any, model: DecisionModel = model, env: AgentEnv = env) -> Any:
            return project(model.evaluate(case).output, env.config.outputs)

        for task in every:
            episode = play_expert(env, task, decide, known_values(every))
            assert list(episode.actions) == env.reference(task)
            assert episode.score.parts["lookups"] == 1
            assert episode.score.parts["needless"] == episode.score.parts["violations"] == 0
            assert why_unfair(env, episode) == ""


def test_the_proof_finds_what_is_not_fair(env: AgentEnv) -> None:
    """An environment that pays for nothing, for any case, or for more than was asked does not pass."""
    task = asking(env)
    model = DecisionModel.read(folder_of(RETURNS) / "decision.json")

    class Lenient(AgentEnv):
        def _judge(self) -> Score:
            return Score(1.0)

    lenient = Lenient(env.tasks, env.config)

    def decide(case: Any) -> Any:
        return project(model.evaluate(case).output, env.config.outputs)

    known = known_values(tasks_of(env))
    assert why_unfair(lenient, play_expert(lenient, task, decide, known)) == "doing nothing scores 1.0"
    wrong = play_expert(env, task, lambda case: {}, known)
    assert "scores 0.0" in why_unfair(env, wrong)


def test_an_old_rule_book_fails_where_the_answer_changed(env: AgentEnv) -> None:
    old = DecisionModel.read(folder_of(RETURNS) / "decision-old.json")
    known = known_values(tasks_of(env))
    values = []
    for task in tasks_of(env):
        answer = project(old.evaluate(task.info["input"]).output, env.config.outputs)
        episode = play_expert(env, task, partial(lambda a, case: a, answer), known)
        assert episode.score.value == float(answer == task.answer)
        values.append(episode.score.value)
    assert 0.1 < sum(values) / len(values) < 0.7


def test_the_database_holds_namesakes_and_distractors(env: AgentEnv) -> None:
    pool, size = stored_cases(tasks_of(env)[:60], 0), DatabaseConfig(customers=9, cases=15)
    for task in tasks_of(env)[:20]:
        world = build_world(task, pool, size, seed=0)
        people = {row[0]: row[1:] for row in world.customers}
        cases = {row[0]: row for row in world.cases}
        me = people[world.customer]
        assert (len(people), len(set(people.values())), len(cases)) == (9, 9, 15)
        twin, near = (people[cases[stranger][1]] for stranger in world.strangers)
        assert twin[0] == me[0]
        assert twin[1] != me[1]
        assert near[1] == me[1]
        changed = [(a, b) for a, b in zip(near[0].split(), me[0].split(), strict=True) if a != b]
        assert len(changed) == 1
        assert all((a in FIRST and b in FIRST) or (a in LAST and b in LAST) for a, b in changed)
        days = [row[2] for row in world.cases if row[1] == world.customer]
        assert days.count(task.info["opened"]) == 1
        assert cases[world.other][1] == world.customer
        assert world == build_world(
            task, stored_cases(tasks_of(env)[:60], 0), DatabaseConfig(customers=9, cases=15), seed=0
        )
        database = Database(world)
        assert sqlite_state(database.connection) == world.state()
        database.close()


def test_withheld_facts_decide(env: AgentEnv) -> None:
    """Whoever does not find out a withheld fact can only guess: another known value changes the answer."""
    model = DecisionModel.read(folder_of(RETURNS) / "decision.json")
    known = known_values(tasks_of(env))
    withheld = 0
    for task in tasks_of(env):
        for name in task.info["withheld"]:
            withheld += 1
            answers = {
                json.dumps(project(model.evaluate({**task.info["input"], name: v}).output, env.config.outputs))
                for v in known[name]
            }
            assert len(answers) > 1
            assert name not in json.loads(dict_of(env, task))
    assert withheld > 30


def dict_of(env: AgentEnv, task: Task) -> str:
    env.reset(seed=0, options={"task": task})
    row = next(row for row in env.world.cases if row[0] == env.world.case)
    return str(row[4])


def test_tools_find_list_get_ask_decide(env: AgentEnv) -> None:
    task = asking(env)
    fact = next(name for name in task.info["withheld"] if name not in task.info["stated"])
    env.reset(seed=0, options={"task": task})
    found = call(env, "find", name=task.info["name"].upper())["customers"]
    me = next(c for c in found if (c["name"], c["city"]) == (task.info["name"], task.info["city"]))
    assert len(found) >= 2
    listed = call(env, "list", customer=me["id"])["cases"]
    case = next(c["case"] for c in listed if c["opened"] == task.info["opened"])
    shown = call(env, "get", case=case)
    assert fact in shown["not_on_file"]
    assert fact not in shown["facts"]
    assert env.step(f"Could you tell me the {fact}?")[0] == f"{fact}: {task.info['says'][fact]}"
    assert call(env, "decide", case=case, decision=task.answer) == {"case": case, "status": DECIDED}
    for name in task.info["withheld"]:  # the others, after the decision: too late to be of use, not harmful
        env.step(f"{name}?")
    *_, info = env.step(write_call("finish"))
    assert info["score"].value == 1.0


TWO = write_call("find_customer", name="a")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TWO + TWO, "2 tool calls in one turn, none of which was run"),
        (f"first {TWO}\nthen {write_call('finish')} and {TWO}", "3 tool calls in one turn"),
        (f"{TWO}<tool_call>", "2 tool calls in one turn"),
        ('<tool_call>{"name": "finish", "arguments": "{}"}</tool_call>', r"must be an object, not \"{}\""),
        ('<tool_call>{"name": "finish", "arguments": [1]}</tool_call>', "must be an object, not [1]"),
        ('<tool_call>{"name": "finish", "arguments": null}</tool_call>', "must be an object, not null"),
        ('<tool_call>{"name": "finish", "parameters": {}}</tool_call>', r"not \"parameters\""),
        ('<tool_call>{"name": "finish", "arguments": {}</tool_call>', "the tool call is not JSON"),
        ('{"arguments": {}}', r"needs \"name\""),
    ],
)
def test_what_is_no_single_call_is_refused_by_what_it_is(env: AgentEnv, text: str, says: str) -> None:
    env.reset(seed=0)
    before = sqlite_state(env._db.connection)
    observation, _, terminated, *_ = env.step(text)
    assert says in observation
    assert not terminated
    assert sqlite_state(env._db.connection) == before


def test_the_rules_of_conduct_block_or_punish(folder: Path) -> None:
    for violations, broken in (("block", 0.0), ("punish", 0.0)):
        env = load(EnvFolder(folder), violations=violations)
        task = asking(env)
        case = task.info["actions"][-2].partition('"case": "')[2].partition('"')[0]
        blind = [write_call("decide_case", case=case, decision=task.answer), write_call("finish")]
        score = replay(env, task, blind)  # the right decision, of an unseen case
        assert score.value == broken
        assert score.parts["violations"] == 1
        assert score.parts["solved"] == (violations == "punish")
        assert score.evidence["violated"] == ["look the case up first"]
    mild = load(EnvFolder(folder), violations="punish", penalty=0.25)
    assert replay(mild, task, blind).value == 0.75
    env = load(EnvFolder(folder))
    env.reset(seed=0, options={"task": task})
    stranger = env.world.strangers[0]
    call(env, "get", case=stranger)
    assert "another customer" in call(env, "decide", case=stranger, decision=task.answer)["error"]
    assert "look the case up" in call(env, "change", case=env.world.case, fact="days", value=1)["error"]
    call(env, "get", case=env.world.other)
    assert "status" in call(env, "decide", case=env.world.other, decision=task.answer)
    assert "final" in call(env, "decide", case=env.world.other, decision=task.answer)["error"]
    env.close()


def test_needless_actions_and_missed_look_ups_are_counted(folder: Path) -> None:
    env = load(EnvFolder(folder), needless_cost=0.1)
    task = asking(env)
    actions = list(env.reference(task) or [])
    assert replay(env, task, actions).value == 1.0
    again = replay(env, task, [actions[0], *actions])
    assert again.parts["needless"] == 1
    assert again.value == 0.9
    asks = next(i for i, action in enumerate(actions) if action.startswith("What is"))
    guessed = replay(env, task, actions[:asks] + actions[asks + 1 :])
    assert guessed.value == 1.0  # right, if only by luck: the part tells
    assert guessed.parts["lookups"] < 1
    env.close()


def test_anything_else_that_changes_is_damage(env: AgentEnv) -> None:
    task = asking(env)
    *work, end = list(env.reference(task) or [])
    env.reset(seed=0, options={"task": task})
    mine, other = env.world.case, env.world.other
    harm = {
        "a fact of the case": [write_call("change_case", case=mine, fact="note", value=1)],
        "a fact of another case": [
            write_call("get_case", case=other),
            write_call("change_case", case=other, fact="days", value=-1),
        ],
        "the fact that was asked for": [
            write_call("change_case", case=mine, fact=task.info["withheld"][0], value="x")
        ],
    }
    for name, more in harm.items():
        score = replay(env, task, [*work, *more, end])
        assert (name, score.value, score.parts["reached"], score.parts["untouched"]) == (name, 0.0, 1.0, 0.0)
    same = write_call("change_case", case=mine, fact="category", value=task.info["input"]["category"])
    if "category" not in task.info["withheld"]:
        assert replay(env, task, [*work, same, end]).value == 1.0  # nothing has changed


def random_action(env: AgentEnv, rng: Any) -> str:
    """A tool with arguments of its kind, most of them from the database itself; now and then plain words."""
    cases, customers = [row[0] for row in env.world.cases], [row[0] for row in env.world.customers]
    answers = [env.tasks.get(i).answer for i in env.tasks.ids("train")]
    values: dict[str, list[Any]] = {
        "case": cases,
        "customer": customers,
        "name": [row[1] for row in env.world.customers] + ["", "a"],
        "fact": [*env.task.info["says"], "note", ""],
        "value": [1, "x", None, {"a": []}],
        "decision": [*answers, {}, None, 7],
    }
    tools = env.config.tool
    tool = tools[int(rng.integers(len(tools)))]
    schema = next(t["function"]["parameters"] for t in env.tools if t["function"]["name"] == tool.name)
    if rng.random() < 0.1:
        return " ".join(str(key) for key in env.task.info["says"])
    if tool.does == "finish" and rng.random() < 0.7:
        return "?"
    return write_call(
        tool.name, **{key: values[key][int(rng.integers(len(values[key])))] for key in schema["required"]}
    )


def random_scores(env: AgentEnv, episodes: int) -> list[float]:
    ids, scores = env.tasks.ids("train"), []
    for episode in range(episodes):
        rng = generator("random agent", episode)
        env.reset(seed=episode, options={"task": ids[episode % len(ids)]})
        over = False
        while not over:
            _, reward, terminated, truncated, _ = env.step(random_action(env, rng))
            over = terminated or truncated
        scores.append(reward)
    return scores


def test_a_thousand_random_episodes_neither_raise_nor_earn(env: AgentEnv) -> None:
    scores = random_scores(env, 1000)
    assert len(scores) == 1000
    assert max(scores) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        write_call("get_case", case="\ud800"),
        write_call("get_case", case="R1", more=1),
        write_call("get_case"),
        write_call("get_case", case=7),
        write_call("find_customer", name="'; DROP TABLE cases; --"),
        write_call("change_case", case="R1", fact="a." * 20_000, value=1),
        write_call("no such tool"),
        '<tool_call>{"name": "decide_case", "arguments": {"case": "R1", "decision": NaN}}</tool_call>',
        "<tool_call>" + "[" * 50_000,
        "<tool_call>{" * 20_000,
        "```{" * 20_000,
        "word " * 50_000,
        "",
    ],
)
def test_whatever_is_written_is_answered(env: AgentEnv, text: str) -> None:
    task = asking(env)
    env.reset(seed=0, options={"task": task})
    call(env, "get", case=env.world.case)
    observation, reward, terminated, *_ = env.step(text)
    assert observation
    assert (reward, terminated) == (0.0, False)
    assert env.step(write_call("finish"))[1] == 0.0
    assert json.dumps(env.messages, ensure_ascii=True)


def test_the_environment_passes_its_own_check(folder: Path) -> None:
    check_env(load(EnvFolder(folder)), skip_render_check=True)
    report = check(str(folder), tasks=25)
    assert report.passed(strict=True), report.findings
    assert registry.make(str(folder)).tasks.ids("eval")


def test_decisions_are_described_by_a_schema(env: AgentEnv) -> None:
    schema = env.config.decision
    assert schema["properties"]["decision"]["type"] == "string"
    assert all(fits(task.answer, schema) == "" for task in tasks_of(env))
    task = asking(env)
    env.reset(seed=0, options={"task": task})
    call(env, "get", case=env.world.case)
    assert '"decision" is missing' in call(env, "decide", case=env.world.case, decision={})["error"]
    assert '"object" is asked for' in call(env, "decide", case=env.world.case, decision="credit")["error"]
    assert schema_of([{"a": 1}, {"a": None, "b": [True]}]) == {
        "type": "object",
        "properties": {
            "a": {"type": ["null", "number"]},
            "b": {"type": "array", "items": {"type": "boolean"}},
        },
        "required": ["a"],
        "additionalProperties": False,
    }


def test_tools_are_renamed_and_left_out_in_env_toml(tmp_path: Path) -> None:
    tools = ", ".join(f'{{ does = "{d}", name = "{d}" }}' for d in ("find", "list", "get", "decide", "finish"))
    import_agent(DECISION, "shop/Short-v0", tmp_path / "e", sizes=SIZES, settings=[f"tool=[{tools}]"])
    env = load(EnvFolder(tmp_path / "e"))
    assert [tool["function"]["name"] for tool in env.tools] == ["find", "list", "get", "decide", "finish"]
    assert '"name": "get"' in env.system
    assert all(replay(env, task, list(env.reference(task) or [])).value == 1.0 for task in tasks_of(env)[:5])
    env.close()
    for setting, message in (
        ('tool=[{does="get", name="get"}]', "no tool does decide"),
        ("database.cases=2", "greater than or equal to 4"),
        ("violation=1", "did you mean 'violations'"),
        ('customer.endpoint="http://x"', "customer.model names its model"),
    ):
        with pytest.raises(ConfigError, match=message):
            import_agent(DECISION, "shop/Bad-v0", tmp_path / "bad", sizes=SIZES, settings=[setting])
    assert not (tmp_path / "bad").exists()


TOOL_TEMPLATE = (
    "{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools>{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_tools_reach_the_model_through_its_own_template(env: AgentEnv, tmp_path: Path) -> None:
    texts = [m["content"] for task in tasks_of(env) for m in task.messages()]
    tiny.build(texts, tmp_path / "m", size=tiny.TinySize(hidden=16, layers=1, heads=2, key_heads=2, ffn=16))
    tokenizer = load_model(tmp_path / "m")[1]
    tokenizer.chat_template = TOOL_TEMPLATE
    renderer = ChatRenderer(tokenizer)
    task = asking(env)
    actions = list(env.reference(task) or [])
    env.reset(seed=0, options={"task": task})
    for action in actions:
        *_, info = env.step(action)
    assert '"name": "find_customer"' in renderer.text(info["messages"][:2], info["tools"])
    (row,) = renderer.training_rows(info["messages"], info["tools"])
    ids, mask = row.token_ids, row.loss_mask
    assert '"decide_case"' in tokenizer.decode(ids[: mask.index(1)])
    learnt = tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])
    assert learnt == "<|im_end|>".join([*actions, ""])


def test_the_scripted_expert_plays_several_turns(env: AgentEnv) -> None:
    episodes = [Episode(task, seed) for seed, task in enumerate(tasks_of(env))]
    episode = rollout(expert(), env, episodes, Sampling())
    assert {trajectory.score.value for trajectory in episode} == {1.0}
    assert len({trajectory.turns for trajectory in episode}) > 3


def test_agent_mode_on_the_command_line(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vertigym.envs.agent.importer.SIZES", SIZES)
    make = ["env", "import", str(DECISION), "--id", "shop/Desk-v0"]
    code, out, _ = command(*make, "--mode", "agent", "--set", "database.cases=9", "--set", "policy=")
    assert (code, out.splitlines()[0]) == (0, "shop/Desk-v0 -> environments/desk")
    assert load(EnvFolder(Path("environments/desk"))).config.database.cases == 9
    code, out, _ = command("env", "show", "shop/Desk-v0")
    assert code == 0
    assert "Please decide my case" in out
    code, _, error = command(*make, "--set", "database.cases=9")
    assert (code, error.count("\n")) == (2, 1)
    assert "--mode agent" in error
